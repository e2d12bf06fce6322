"""Grids by name or from a file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from fewstep.errors import InputError
from fewstep.processes import Process
from fewstep.processes.base import on_host
from fewstep.processes.spec import build, parse, register
from fewstep.time_grid import TimeGrid

if TYPE_CHECKING:
    from fewstep.grids.heuristic import End
    from fewstep.solvers.base import Solver

__all__ = ["NAMES", "named", "registered"]

P = ParamSpec("P")
Made = TypeVar("Made", bound=TimeGrid)

NAMES: dict[str, Callable[..., TimeGrid]] = {}
"""The functions that make grids, by name: what the command line and the scheduler know."""


def registered(make: Callable[P, Made]) -> Callable[P, Made]:
    """Return a function that makes grids, known by its name from now on, and run on the host.

    It is called as ``make(process, steps, *, end=None, …)``, or as ``make(process, solver, steps, *, end=None, …)`` if
    it has an argument ``solver``; its other settings have defaults.

    Raises:
        InputError: if another function has the name.
    """
    made = on_host(make)
    register("grid", make.__name__, made, NAMES)
    return made


def named(spec: str, process: Process, steps: int, end: End = None, *, solver: Solver | None = None) -> TimeGrid:
    """Return the grid of ``spec``: a name, with settings if wanted, as "karras:rho=5", or a ``.json`` file.

    "optimized" and others that look at a solver are made for ``solver``.

    Raises:
        InputError: if there is no such grid or file, a setting is not one of its own, or the file's grid is
            of another process or number of steps.
    """
    if spec.endswith(".json"):
        return _from_file(Path(spec), process, steps)
    name, settings = parse(spec)
    makers: dict[str, Callable[..., TimeGrid]] = {}
    for key, make in NAMES.items():
        if "solver" not in signature(make).parameters:
            makers[key] = partial(make, process, steps, end=end)
        elif solver is not None:
            makers[key] = partial(make, process, solver, steps, end=end)
    return build("grid", name.replace("-", "_"), makers, settings)


def _from_file(path: Path, process: Process, steps: int) -> TimeGrid:
    try:
        grid = TimeGrid.from_json(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the grid file {str(path)!r} cannot be read: {error}.") from error
    if grid.process != process or grid.steps != steps:
        raise InputError(
            f"{str(path)!r} holds {grid.steps} steps of {grid.process!r}; {steps} of {process!r} are asked for."
        )
    return grid

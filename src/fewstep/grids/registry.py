"""Grids by name or from a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from fewstep.checks import shown
from fewstep.errors import InputError
from fewstep.processes import Process
from fewstep.processes.base import as_process, on_host
from fewstep.processes.spec import build, check, parse, register
from fewstep.time_grid import TimeGrid

if TYPE_CHECKING:
    from fewstep.grids.heuristic import End
    from fewstep.solvers.base import Solver

__all__ = ["NAMES", "named", "read", "registered"]

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


def named(
    spec: str | os.PathLike[str] | TimeGrid,
    process: Process,
    steps: int | None,
    end: End = None,
    *,
    solver: Solver | None = None,
) -> TimeGrid:
    """Return the grid of ``spec``: a name, with settings if needed, as "karras:rho=5", a ``.json`` file, or a grid.

    "optimized" and others that look at a solver are made for ``solver``.

    Args:
        spec: what is wanted; a ``TimeGrid`` is returned as it is.
        process: the model's.
        steps: the number of intervals; None: those of the file or the grid.
        end: the last time of a grid that is named, where its settings do not say it.
        solver: the one that the grid is for.

    Raises:
        InputError: if there is no such grid or file, a setting is unknown, a file's grid is of another
            process or number of steps, or the number is missing.
    """
    process = as_process(process)
    given = read(spec)
    if given is not None:
        if given.process != process or steps not in (None, given.steps):
            wanted = f"{steps} of {process!r}" if steps is not None else repr(process)
            raise InputError(f"{_shown(spec)} has {given.steps} steps of {given.process!r}, not {wanted}.")
        return given
    if steps is None:
        raise InputError(f"how many steps has the grid {spec!r}? Give a whole number of at least 1.")
    name, settings = parse(str(spec))
    makers: dict[str, Callable[..., TimeGrid]] = {}
    for key, make in NAMES.items():
        if "solver" not in signature(make).parameters:
            makers[key] = partial(make, process, steps, end=end)
        elif solver is not None:
            makers[key] = partial(make, process, solver, steps, end=end)
    return build("grid", name.replace("-", "_"), makers, settings)


def read(spec: str | os.PathLike[str] | TimeGrid, steps: int | None = None) -> TimeGrid | None:
    """Return the grid of a ``.json`` file, or the one given; None for a name: that one is checked, not made.

    So a mistyped grid is refused before a model is loaded.

    Args:
        spec: as for ``named``.
        steps: the number of intervals that is asked for; None: any.

    Raises:
        InputError: if there is no such grid, file or setting, or a grid has another number of steps.
    """
    if not isinstance(spec, (str, os.PathLike, TimeGrid)):
        raise InputError(
            f"grid is {shown(spec)}: give a name, as 'karras' or 'karras:rho=5', a .json file, or a TimeGrid."
        )
    if isinstance(spec, (TimeGrid, os.PathLike)) or _is_file(spec):
        grid = spec if isinstance(spec, TimeGrid) else _from_file(Path(spec))
        if steps not in (None, grid.steps):
            raise InputError(
                f"{_shown(spec)} has {grid.steps} steps, not {steps}: ask for {grid.steps}, or leave steps out."
            )
        return grid
    name, settings = parse(spec)
    check("grid", name.replace("-", "_"), NAMES, settings, besides=("process", "solver", "steps"))
    return None


def _is_file(spec: str) -> bool:
    """Return whether a spec is the name of a file; one of the settings of a grid's name may end like that too."""
    return spec.endswith(".json") and spec.partition(":")[0].replace("-", "_") not in NAMES


def _shown(spec: str | os.PathLike[str] | TimeGrid) -> str:
    return "the grid" if isinstance(spec, TimeGrid) else f"the grid {os.fspath(spec)!r}"


def _from_file(path: Path) -> TimeGrid:
    return TimeGrid.load(path)

"""Grids by name or from a file: what the command line speaks of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fewstep.errors import InputError
from fewstep.grids.heuristic import End, karras, quadratic_time, uniform_logsnr, uniform_time
from fewstep.grids.optimized import optimized
from fewstep.processes import Process
from fewstep.processes.spec import build, parse
from fewstep.time_grid import TimeGrid

if TYPE_CHECKING:
    from fewstep.solvers.base import Solver

__all__ = ["NAMES", "named"]

NAMES: dict[str, Callable[..., TimeGrid]] = {
    "karras": karras,
    "optimized": optimized,
    "quadratic_time": quadratic_time,
    "uniform_logsnr": uniform_logsnr,
    "uniform_time": uniform_time,
}


def named(spec: str, process: Process, steps: int, end: End = None, *, solver: Solver | None = None) -> TimeGrid:
    """Return the grid of ``spec``: a name, with settings if wanted, as "karras:rho=5", or a ``.json`` file.

    "optimized" is optimised for ``solver``.

    Raises:
        InputError: if there is no such grid or file, a setting is not one of its own, or the file's grid is
            of another process or number of steps.
    """
    if spec.endswith(".json"):
        return _from_file(Path(spec), process, steps)
    name, settings = parse(spec)
    makers: dict[str, Callable[..., TimeGrid]] = {
        key: partial(maker, process, steps, end=end) for key, maker in NAMES.items() if maker is not optimized
    }
    if solver is not None:
        makers["optimized"] = partial(optimized, process, solver, steps, end=end)
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

"""``fewstep grid``: a time grid as numbers, as a file and as a picture beside the others."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch import Tensor

from fewstep import grids, processes, solvers
from fewstep.cli.settings.grid import GridSettings
from fewstep.errors import InputError
from fewstep.grids.bound import Bound
from fewstep.grids.heuristic import End
from fewstep.processes import Process
from fewstep.recommended import STEPS, recommended
from fewstep.report.style import ACCENT, MUTED, drawing
from fewstep.solvers import Solver
from fewstep.storage import write_whole
from fewstep.time_grid import TimeGrid

__all__ = ["grid"]


def grid(settings: GridSettings) -> None:
    """Print a time grid, and write and draw it if wanted."""
    process = processes.named(settings.process)
    given = None if settings.grid is None else grids.read(settings.grid, settings.steps)
    steps = given.steps if given is not None else STEPS if settings.steps is None else settings.steps
    rule = recommended(process, steps, latent=settings.error_power > 1)
    name, solver, end = settings.grid or rule.grid, solvers.named(settings.solver or rule.solver), _end(settings.end)
    written = f"optimized:error_power={settings.error_power:g}" if name == "optimized" else name
    made = grids.named(written, process, steps, end, solver=solver)
    bounds = _print(made, solver, settings.error_power)
    if settings.out is not None:
        write_whole(settings.out, lambda path: path.write_text(made.to_json() + "\n", "utf-8"))
    if settings.plot is not None:
        others = [other for other in grids.NAMES if other != name.partition(":")[0]]
        shown = {name: made} | {other: grids.named(other, process, steps, end, solver=solver) for other in others}
        write_whole(settings.plot, lambda path: draw(shown, bounds, path))


def _end(text: str) -> End:
    if text == "habit":
        return None
    if text == "zero":
        return "zero"
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"--end is {text!r}: give a time, 'zero' or 'habit'.") from error


def _print(grid: TimeGrid, solver: Solver, error_power: float) -> Bounds:
    """Print the table and what the optimisation did; return the function that bounds a grid."""
    console = Console(highlight=False)
    table = Table("step", "t", "σ/α", "λ", "timestep", box=None, header_style="bold")
    for column in table.columns:
        column.justify = "right"
    for i, t in enumerate(grid.times):
        level = float(grid.sigma[i] / grid.alpha[i]) if float(grid.alpha[i]) else float("inf")
        fed = f"{float(timestep(grid.process, t)):.3f}" if i < grid.steps else ""
        table.add_row(str(i), f"{float(t):.6f}", f"{level:.5f}", f"{float(grid.half_logsnr[i]):+.4f}", fed)
    console.print(table)
    bounds = Bounds(grid.process, solver, error_power, grid.ends_at_zero)
    console.print(f"{solver.plan(grid).nfe} network calls, error bound {bounds(grid):.4g} (p = {error_power:g})")
    report = getattr(grid, "report", None)
    if report is not None:
        before = ", ".join(f"{name} {value:.4g}" for name, value in report.before.items())
        console.print(f"{report.method}, {report.iterations} iterations, {report.seconds * 1e3:.0f} ms; from {before}")
    return bounds


class Bounds:
    """The error bound of one grid at a time."""

    def __init__(self, process: Process, solver: Solver, error_power: float, to_zero: bool) -> None:
        self.bound = Bound(process, solver, error_power, to_zero=to_zero)

    def __call__(self, grid: TimeGrid) -> float:
        """Return the bound of ``grid``."""
        return float(self.bound(grid.times[None])[0])


def timestep(process: Process, t: Tensor) -> Tensor:
    """Return what a diffusers network is fed at ``t``: N·t − 1, 1000·t for a flow, ¼·log σ for EDM."""
    if isinstance(process, processes.RectifiedFlow):
        return 1000.0 * t
    if isinstance(process, processes.EDM):
        return 0.25 * t.log()
    return process.network_time(t) if isinstance(process, processes.VPDiscrete) else 1000.0 * t - 1.0


def draw(shown: dict[str, TimeGrid], bounds: Bounds, path: Path) -> None:
    """Draw the grids as points on a σ/α axis, one row each, with their bounds."""
    with drawing(path, 8, 0.9 + 0.42 * len(shown), dpi=150) as (_, panels):
        axes = panels[0][0]
        for row, grid in enumerate(shown.values()):
            finite = grid.half_logsnr[grid.half_logsnr.isfinite()]
            colour = ACCENT if row == 0 else MUTED
            axes.plot((-finite).exp(), [row] * len(finite), "o-", color=colour, markersize=5, linewidth=1)
            axes.annotate(
                f"bound {bounds(grid):.3g}",
                (1.0, row),
                xycoords=("axes fraction", "data"),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                color=colour,
            )
        axes.set_yticks(range(len(shown)), list(shown))
        axes.set(xscale="log", xlabel="σ/α, from noise to data")
        axes.invert_xaxis()
        axes.invert_yaxis()
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)

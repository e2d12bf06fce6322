"""``fewstep grid``: a time grid as numbers, as a file and as a picture beside the others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewstep.cli.shared.options import SOLVER
from fewstep.errors import InputError, MissingPackageError

if TYPE_CHECKING:
    from torch import Tensor

    from fewstep.grids.heuristic import End
    from fewstep.processes import Process
    from fewstep.solvers import Solver
    from fewstep.time_grid import TimeGrid

__all__ = ["grid"]


def grid(
    process: Annotated[str, typer.Option(help="vp-linear, vp-cosine, vp-discrete, edm or flow:shift=3.")] = "vp-linear",
    solver: Annotated[str, typer.Option(help="The solver that the grid is for, as unipc or sa:tau=0.5.")] = SOLVER,
    steps: Annotated[int, typer.Option(help="Intervals of the grid, 1 or more.")] = 8,
    name: Annotated[
        str, typer.Option("--grid", help="Which grid to print: optimized, karras, ... or a .json file.")
    ] = "optimized",
    error_power: Annotated[float, typer.Option(help="p of the error σ^p/α: 1 for pixels, 2 for latents.")] = 1.0,
    end: Annotated[str, typer.Option(help="The last time, 'zero', or 'habit' for the process's own.")] = "habit",
    out: Annotated[Path | None, typer.Option(help="Write the grid to this .json file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw it beside the others into this .png or .svg file.")] = None,
) -> None:
    """Print a time grid: t, σ, λ and the timesteps of diffusers.

    Example: fewstep grid --process vp-discrete --solver unipc:order=2 --steps 8 --out grid.json --plot grid.png
    """
    from fewstep import grids, processes, solvers
    from fewstep.storage import write_whole

    _check_suffix("--out", out, (".json",))
    _check_suffix("--plot", plot, (".png", ".svg"))
    where, chosen = processes.named(process), solvers.named(solver)
    last = _end(end)
    if name == "optimized":
        made: TimeGrid = grids.optimized(where, chosen, steps, error_power=error_power, end=last)
    else:
        made = grids.named(name, where, steps, last, solver=chosen)
    bounds = _print(made, chosen, error_power)
    if out is not None:
        write_whole(out, lambda path: _write(path, made.to_json()))
    if plot is not None:
        others = {other: make(where, steps, end=last) for other, make in grids.NAMES.items() if other != "optimized"}
        write_whole(plot, lambda path: draw({name: made, **others}, bounds, path))


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n", "utf-8")


def _check_suffix(option: str, path: Path | None, suffixes: tuple[str, ...]) -> None:
    if path is not None and path.suffix not in suffixes:
        raise InputError(f"{option} is {str(path)!r}: end the name in {' or '.join(suffixes)}.")
    if path is not None and not path.absolute().parent.is_dir():
        raise InputError(f"{option} is {str(path)!r}: the folder {str(path.absolute().parent)!r} does not exist.")


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
    from rich.console import Console
    from rich.table import Table

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
        from fewstep.grids.bound import Bound

        self.bound = Bound(process, solver, error_power, to_zero=to_zero)

    def __call__(self, grid: TimeGrid) -> float:
        """Return the bound of ``grid``."""
        return float(self.bound(grid.times[None])[0])


def timestep(process: Process, t: Tensor) -> Tensor:
    """Return what a diffusers network is fed at ``t``: N·t − 1, 1000·t for a flow, ¼·log σ for EDM."""
    from fewstep import processes

    if isinstance(process, processes.RectifiedFlow):
        return 1000.0 * t
    if isinstance(process, processes.EDM):
        return 0.25 * t.log()
    return process.network_time(t) if isinstance(process, processes.VPDiscrete) else 1000.0 * t - 1.0


def draw(shown: dict[str, TimeGrid], bounds: Bounds, path: Path) -> None:
    """Draw the grids as points on a σ/α axis, one row each, with their bounds."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingPackageError("figures need matplotlib: pip install 'fewstep[cli]'.") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.42 * len(shown)), layout="constrained")
    for row, grid in enumerate(shown.values()):
        finite = grid.half_logsnr[grid.half_logsnr.isfinite()]
        colour = "#c1121f" if row == 0 else "#5c6b73"
        axes.plot((-finite).exp(), [row] * len(finite), "o-", color=colour, markersize=5, linewidth=1)
        label = f"bound {bounds(grid):.3g}"
        axes.annotate(label, (1.0, row), xycoords=("axes fraction", "data"), xytext=(6, 0),
                      textcoords="offset points", va="center", fontsize=9, color=colour)  # fmt: skip
    axes.set_yticks(range(len(shown)), list(shown))
    axes.set(xscale="log", xlabel="σ/α, from noise to data")
    axes.invert_xaxis()
    axes.invert_yaxis()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(path, dpi=150, format=path.suffix[1:])
    plt.close(figure)

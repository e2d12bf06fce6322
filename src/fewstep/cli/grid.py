"""``fewstep grid``: a time grid as numbers, as a file and as a picture beside the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import Tensor

from fewstep import grids, processes, solvers
from fewstep.cli.settings.grid import GridSettings
from fewstep.cli.shared.spectra import spectrum_of
from fewstep.errors import InputError
from fewstep.grids.bound import Bound
from fewstep.grids.heuristic import End
from fewstep.grids.spectral import SpectralError
from fewstep.processes import Process
from fewstep.processes.spec import parse
from fewstep.recommended import STEPS, recommended
from fewstep.report.style import ACCENT, COLOURS, MUTED, drawing, plain_ticks
from fewstep.solvers import Solver
from fewstep.spectra import Spectrum
from fewstep.spectra.gaussian import local_errors
from fewstep.storage import write_whole
from fewstep.time_grid import TimeGrid
from fewstep.tuning.pool import plan_of_calls

__all__ = ["grid"]

COMPARED = {
    "DDIM": "ddim",
    "DPM++2": "dpmpp:order=2",
    "DPM++3": "dpmpp:order=3",
    "DEIS-2": "deis:order=2",
    "UniPC-2": "unipc:order=2",
    "UniPC-3": "unipc:order=3",
    "Heun": "heun",
    "DDIM, η = 1": "ddim:eta=1",
    "SA-2, τ = 0.4": "sa:predictor_order=2,corrector_order=2,few_step=true,tau=0.4",
    "SA-2, τ = 1": "sa:predictor_order=2,corrector_order=2,few_step=true,tau=1",
}
"""The solvers of ``--compare``."""
OF_OPTIMIZED = {"objective", "spectrum", "error_power", "method"}
"""The settings of the grid "optimized" that say what it minimises."""


def grid(settings: GridSettings) -> None:
    """Print a time grid, and write and draw it if wanted."""
    given = None if settings.grid is None else grids.read(settings.grid, settings.steps)
    spelled = {} if settings.grid is None or given is not None else parse(settings.grid)[1]
    by_bound = "method" in spelled or spelled.get("objective") == "bound"
    end, power = spelled.get("end"), spelled.get("error_power", 1 if by_bound else None)
    if settings.spectrum is not None and not spelled.keys().isdisjoint(OF_OPTIMIZED):
        raise InputError(f"--spectrum is given, and --grid {settings.grid!r} says what to minimise: leave one out.")
    data, of_model = spectrum_of(settings.spectrum or str(spelled.get("spectrum", "pixels")))
    process = of_model if settings.process is None and of_model else processes.named(settings.process or "vp-linear")
    steps = given.steps if given is not None else STEPS if settings.steps is None else settings.steps
    solver = solvers.named(settings.solver or recommended(process, steps).solver)
    name = settings.grid or recommended(process, steps).grid
    made = _made(name, process, solver, steps, end, power, data)
    error = Predicted(process, solver, data) if power is None else Bounds(process, solver, power, made.ends_at_zero)
    _print(made, solver, error)
    if settings.compare:
        Console(highlight=False).print(comparison(process, steps, end, data))
    if settings.out is not None:
        write_whole(settings.out, lambda path: path.write_text(made.to_json() + "\n", "utf-8"))
    if settings.plot is not None:
        others = [other for other in grids.NAMES if other != name.partition(":")[0]]
        reached = {other: _made(other, process, solver, steps, end, power, data) for other in others}
        write_whole(settings.plot, lambda path: draw({name: made} | reached, solver, error, path))


def _made(
    name: str, process: Process, solver: Solver, steps: int, end: End, power: float | None, spectrum: Spectrum
) -> TimeGrid:
    """Return the grid of that name; "optimized" minimises what its settings say, else the bound or on the spectrum.

    An end that a grid does not have is left to its default.
    """
    if name.partition(":")[0] == "optimized":
        goal: dict[str, Any] = {"spectrum": spectrum} if power is None else {"error_power": power}
        spelled = parse(name)[1]
        goal = goal if spelled.keys().isdisjoint(OF_OPTIMIZED) else {}
        return grids.optimized(process, solver, steps, **{"end": end, **goal, **spelled})
    if name == "early_end":
        end = None
    return grids.named(name, process, steps, end, solver=solver)


def _print(grid: TimeGrid, solver: Solver, error: Predicted | Bounds) -> None:
    """Print the table and what the optimisation did."""
    console = Console(highlight=False)
    table = Table("step", "t", "σ/α", "λ", "timestep", box=None, header_style="bold")
    for column in table.columns:
        column.justify = "right"
    for i, t in enumerate(grid.times):
        level = float(grid.sigma[i] / grid.alpha[i]) if float(grid.alpha[i]) else float("inf")
        fed = f"{float(timestep(grid.process, t)):.3f}" if i < grid.steps else ""
        table.add_row(str(i), f"{float(t):.6f}", f"{level:.5f}", f"{float(grid.half_logsnr[i]):+.4f}", fed)
    console.print(table)
    console.print(f"{solver.plan(grid).nfe} network calls, {error.words} {error(grid):.4g}{error.unit}")
    report = getattr(grid, "report", None)
    if report is not None:
        before = ", ".join(f"{name} {value:.4g}" for name, value in report.before.items())
        console.print(f"{report.method}, {report.iterations} iterations, {report.seconds * 1e3:.0f} ms; from {before}")


class Predicted:
    """The predicted error of one grid at a time, on Gaussian data with a spectrum."""

    words = "predicted error"

    def __init__(self, process: Process, solver: Solver, spectrum: Spectrum) -> None:
        self.error, self.spectrum = SpectralError(process, solver, spectrum), spectrum
        self.unit = f" (the data vary by {spectrum.total**0.5:.3g})"

    def __call__(self, grid: TimeGrid) -> float:
        """Return the error of ``grid``."""
        return float(self.error(grid.times[None])[0])


class Bounds:
    """The error bound of one grid at a time."""

    words = "error bound"

    def __init__(self, process: Process, solver: Solver, error_power: float, to_zero: bool) -> None:
        self.bound = Bound(process, solver, error_power, to_zero=to_zero)
        self.unit = f" (p = {error_power:g})"

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


def draw(shown: dict[str, TimeGrid], solver: Solver, error: Predicted | Bounds, path: Path) -> None:
    """Draw the grids as points on a σ/α axis, one row each, and what each loses at each frequency."""
    spectrum = error.spectrum if isinstance(error, Predicted) else None
    panels_wanted = 2 if spectrum is not None and spectrum.frequencies is not None else 1
    height = max(0.9 + 0.42 * len(shown), 3.2 if panels_wanted == 2 else 0.0)
    ratios: dict[str, Any] = {"width_ratios": [3, 2][:panels_wanted]}
    with drawing(path, 8 + 4 * (panels_wanted - 1), height, columns=panels_wanted, dpi=150, **ratios) as (_, panels):
        axes = panels[0][0]
        for row, grid in enumerate(shown.values()):
            finite = grid.half_logsnr[grid.half_logsnr.isfinite()]
            colour = ACCENT if row == 0 else MUTED
            axes.plot((-finite).exp(), [row] * len(finite), "o-", color=colour, markersize=5, linewidth=1)
            axes.annotate(
                f"{error(grid):.3g}",
                (1.0, row),
                xycoords=("axes fraction", "data"),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                color=colour,
            )
        axes.set_yticks(range(len(shown)), list(shown))
        axes.set(xscale="log", xlabel="σ/α, from noise to data", title=error.words)
        axes.title.set(fontsize=10, horizontalalignment="right", x=1.0)
        plain_ticks(axes.xaxis)
        axes.invert_xaxis()
        axes.invert_yaxis()
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        if spectrum is not None and panels_wanted == 2:
            _draw_by_frequency(panels[0][1], shown, solver, spectrum)


def _draw_by_frequency(axes: Any, shown: dict[str, TimeGrid], solver: Solver, spectrum: Spectrum) -> None:
    """Draw the predicted error at each frequency, relative to how much the data vary there."""
    assert spectrum.frequencies is not None
    there = spectrum.variances > 0
    frequencies, order = spectrum.frequencies[there].sort()
    variances = spectrum.variances[there][order]
    others = [colour for colour in COLOURS if colour != ACCENT]
    low = float(frequencies[frequencies > 0].min())
    for row, (name, grid) in enumerate(shown.items()):
        lost = local_errors(solver.plan(grid), variances).abs().sum(-2) / variances.sqrt()
        colour, width = (ACCENT, 2.0) if row == 0 else (others[row % len(others)], 1.0)
        axes.plot(frequencies.clamp(min=0.7 * low), lost, color=colour, linewidth=width, label=name)
    axes.set(xscale="log", yscale="log", xlabel="cycles per pixel: coarse to fine", ylabel="error, share of the data's")
    axes.legend(fontsize=7)
    plain_ticks(axes.xaxis, axes.yaxis)


def comparison(process: Process, steps: int, end: End, spectrum: Spectrum) -> Table:
    """Return the table of the likely error of solvers on grids at as many network calls as steps."""
    names = list(grids.NAMES)
    table = Table(box=None, header_style="bold", title=f"likely error in {steps} calls")
    table.add_column("solver", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", overflow="fold", min_width=6)
    cells: list[list[float | None]] = []
    for word in COMPARED.values():
        solver = solvers.named(word)
        row: list[float | None] = []
        for name in names:
            row.append(_likely(name, process, solver, steps, end, spectrum))
        cells.append(row)
    best = min(value for row in cells for value in row if value is not None)
    for word, row in zip(COMPARED, cells, strict=True):
        if all(value is None for value in row):
            continue
        shown = ["" if v is None else f"[bold]{v:.4f}[/]" if v == best else f"{v:.4f}" for v in row]
        table.add_row(word, *shown)
    return table


def _likely(name: str, process: Process, solver: Solver, calls: int, end: End, spectrum: Spectrum) -> float | None:
    """Return the likely error on a grid in so many calls, or None where no number of steps costs just that."""
    plan = plan_of_calls(solver, lambda steps: _made(name, process, solver, steps, end, None, spectrum), calls)
    return None if plan is None else float(SpectralError(process, solver, spectrum).likely(plan.times[None])[0])

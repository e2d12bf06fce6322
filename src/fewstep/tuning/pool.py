"""The candidates of a search, ranked by their predicted error without a network call."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import torch

from fewstep import grids, solvers
from fewstep.errors import InputError
from fewstep.grids.spectral import SpectralError
from fewstep.plan import Plan
from fewstep.processes import Process, RectifiedFlow
from fewstep.solvers import Solver
from fewstep.spectra import Spectrum
from fewstep.time_grid import TimeGrid
from fewstep.tuning.settings import Settings

__all__ = ["DETERMINISTIC", "STOCHASTIC", "plan_of_calls", "ranked"]

DETERMINISTIC = (
    "unipc:order=2",
    "unipc:order=3",
    "dpmpp:order=2",
    "dpmpp:order=3",
    "deis:order=2",
    "deis:order=3",
    "ipndm:order=2",
    "ipndm:order=3",
    "ipndm:order=4",
    "sa:predictor_order=2,corrector_order=2,few_step=true,tau=0.0",
    "ddim",
    "heun",
)
"""Solvers without noise."""
STOCHASTIC = (
    "sa:predictor_order=2,corrector_order=2,few_step=true,tau=0.2",
    "sa:predictor_order=2,corrector_order=2,few_step=true,tau=0.4",
    "sa:predictor_order=2,corrector_order=2,few_step=true,tau=1.0",
    "sa:predictor_order=2,corrector_order=2,few_step=true,tau=1.0@0.57:5.1",
    "ddim:eta=1.0",
)
"""Solvers that add noise."""
ANALYTIC = ("unipc:order=2", "unipc:order=3", "dpmpp:order=2", "ipndm:order=3", "ddim")
"""Those that are also tried with a first prediction of Gaussian data in place of a call."""
SHIFTS = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0)
"""Shifts of a flow's even times that are tried beside the model's."""


Make = Callable[..., TimeGrid]
"""steps=… → a grid."""


def plan_of_calls(solver: Solver, make: Make, calls: int) -> Plan | None:
    """Return the solver's plan of ``calls`` network calls on the grids that ``make(steps=…)`` makes.

    None where no number of steps costs just that.
    """
    for steps in range(calls + int(solver.analytic_first), 0, -1):
        plan = solver.plan(make(steps=steps))
        if plan.nfe <= calls:
            return plan if plan.nfe == calls else None
    return None


@lru_cache(maxsize=16)
def ranked(
    process: Process,
    calls: int,
    spectrum: Spectrum,
    rule: str,
    *,
    stochastic: bool,
    on_steps: bool = False,
    boundary: float | None = None,
) -> tuple[tuple[Settings, float], ...]:
    """Return all candidates of ``calls`` network calls with their likely errors, by Gaussian data of a spectrum.

    The best of each solver come first, in the order of their errors, then the second of each, and so on: a solver that
    suits a network better than Gaussian data gets its trial.

    Args:
        process: the model's.
        calls: network calls of a sample.
        spectrum: of the model's samples.
        rule: the grid that is recommended for the model, in words.
        stochastic: whether solvers that add noise are among them.
        on_steps: whether times are moved to training steps.
        boundary: the time at which the model's two experts change; grids with a time there are tried too.
    """
    by_solver: list[list[tuple[Settings, float]]] = []
    for word in (*DETERMINISTIC, *(STOCHASTIC if stochastic else ())):
        found: dict[tuple[float, ...], tuple[Settings, float]] = {}
        for solver, spelled in _variants(word, process):
            error = SpectralError(process, solver, spectrum)
            for name, make in _makers(process, solver, spectrum, rule, boundary):
                try:
                    plan = plan_of_calls(solver, make, calls)
                except InputError:  # There is no such grid of this process.
                    continue
                if plan is None:
                    continue
                if on_steps:
                    plan = solver.plan(plan.grid.on_training_steps())
                places = (float(solver.analytic_first), *(round(t, 9) for t in plan.times.tolist()))
                if places not in found:
                    predicted = float(error.likely(plan.times[None])[0])
                    if math.isfinite(predicted):
                        found[places] = Settings(spelled, name, plan), predicted
        by_solver.append(sorted(found.values(), key=lambda entry: (entry[1], entry[0].name)))
    turns = [row[turn] for turn in range(max(map(len, by_solver), default=0)) for row in by_solver if turn < len(row)]
    place = {id(entry): turn for row in by_solver for turn, entry in enumerate(row)}
    return tuple(sorted(turns, key=lambda entry: (place[id(entry)], entry[1], entry[0].name)))


def _variants(word: str, process: Process) -> Iterator[tuple[Solver, str]]:
    """Yield the solver, and where a first prediction can be that of Gaussian data, the solver with it."""
    yield solvers.named(word), word
    if word in ANALYTIC:
        spelled = f"{word}{',' if ':' in word else ':'}analytic_first=true"
        yield solvers.named(spelled), spelled


def _makers(
    process: Process, solver: Solver, spectrum: Spectrum, rule: str, boundary: float | None
) -> Iterator[tuple[str, Make]]:
    """Yield the grids by name, as functions of the number of steps."""
    optimized = partial(grids.optimized, process, solver)
    yield "the grid of its spectrum", partial(optimized, spectrum=spectrum, end="zero")
    if not solver.analytic_first:
        yield rule, partial(_named, rule, process, solver)
    for name in ("uniform_logsnr", "uniform_time", "quadratic_time", "karras"):
        yield f"{name}:end=zero", partial(grids.NAMES[name], process, end="zero")
    yield "karras:rho=3,end=zero", partial(grids.karras, process, rho=3.0, end="zero")
    yield "uniform_time:end=0", partial(grids.uniform_time, process, end=0.0)
    for level in (1.5, 2.0, 2.5, 3.0):
        yield f"early_end:half_logsnr={level:g}", partial(grids.early_end, process, half_logsnr=level)
    if isinstance(process, RectifiedFlow):
        for shift in SHIFTS:
            yield f"uniform_time, shift {shift:g}", partial(_shifted, process, shift)
    if boundary is not None:
        place = f"boundary={boundary:g}"
        yield f"the grid of its spectrum, {place}", partial(optimized, spectrum=spectrum, end="zero", boundary=boundary)
        yield f"uniform_time:end=0,{place}", partial(grids.uniform_time, process, end=0.0, boundary=boundary)


def _named(rule: str, process: Process, solver: Solver, steps: int) -> TimeGrid:
    return grids.named(rule, process, steps, solver=solver)


def _shifted(process: Process, shift: float, steps: int) -> TimeGrid:
    """Return the grid that is even in time before ``shift``, from where the process starts."""
    times = grids.uniform_time(RectifiedFlow(shift), steps, end=0.0).times.clone()
    times[0] = process.t_max
    if steps > 1 and not bool(times[1] < times[0]):
        raise InputError(f"shift {shift:g} puts {steps} steps beyond the first time of {process!r}.")
    return TimeGrid(process, torch.cat([times[:-1], torch.zeros(1, dtype=torch.float64)]))

"""Time steps that minimise the error of the solver in use."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from fewstep.checks import as_real, as_word, real, shown
from fewstep.errors import InputError
from fewstep.grids.bound import Bound, ErrorPower
from fewstep.grids.bound_search import prox_linear_search, trust_region_search
from fewstep.grids.heuristic import (
    End,
    Start,
    beginning,
    checked_boundary,
    checked_steps,
    karras,
    quadratic_time,
    span,
    uniform_logsnr,
    uniform_time,
)
from fewstep.grids.placement import Placement
from fewstep.grids.registry import registered
from fewstep.grids.spectral import SpectralError, cleanest, log_newton_search, placements
from fewstep.processes import Process
from fewstep.processes.base import as_process
from fewstep.spectra import Spectrum, named
from fewstep.time_grid import TimeGrid

if TYPE_CHECKING:
    from fewstep.solvers.base import Solver

__all__ = ["SEARCHED", "OptimizationReport", "OptimizedGrid", "optimized"]

STARTS = {
    "uniform_logsnr": uniform_logsnr,
    "uniform_time": uniform_time,
    "quadratic_time": quadratic_time,
    "karras": karras,
}
Objective = Literal["spectrum", "bound"]
Method = Literal["prox-linear", "trust-constr"]
SEARCHED = 60
"""The most steps for which times are searched."""
MOST = 1000
"""The most steps for which errors are computed: the work grows with their square."""


@dataclass(frozen=True)
class OptimizationReport:
    """What an optimisation did: the error of each start, of the result, and the work.

    Attributes:
        before: the predicted error, or the bound, of each heuristic grid.
        after: that of the result.
        objective: "spectrum" or "bound".
        method: how the result was found.
        error_power: p of a bound, or None.
        iterations: of the method.
        seconds: it took.
    """

    before: dict[str, float]
    after: float
    objective: str
    method: str
    error_power: float | None
    iterations: int
    seconds: float


class OptimizedGrid(TimeGrid):
    """A time grid with the ``report`` of the optimisation that made it."""

    def __init__(self, process: Process, times: Tensor, report: OptimizationReport) -> None:
        super().__init__(process, times)
        self.report = report


@registered
def optimized(
    process: Process,
    solver: Solver,
    steps: int,
    *,
    objective: Objective | None = None,
    spectrum: Spectrum | str | None = None,
    floor: float = 0.0,
    error_power: ErrorPower | None = None,
    start: Start = None,
    end: End = None,
    boundary: float | None = None,
    method: Method | None = None,
) -> OptimizedGrid:
    r"""Return the grid that minimises the predicted error of ``solver``.

    The first time and the last one are fixed, as in the heuristic grids (from α = 0 the grid is optimised from
    ``t_max``, and its first time then moved there); to the noise-free end the last time before it is free too, down to
    ``t_min``. It works for any solver with a plan and any process; it is deterministic, and never returns a grid whose
    error is above that of a start (uniform λ, uniform t, quadratic, Karras).

    **spectrum** (the default): the error that the solver really makes on Gaussian data with a spectrum, interval by
    interval, Σ_n √(mean_k e_{k,n}²) over the modes k. Each interval counts by its size, for networks do not let errors
    of different intervals cancel; the mean runs over the spectrum times 1/3, 1 and 3, so that the grid is no
    coincidence. See ``fewstep.spectra.gaussian.local_errors`` for e, of which a stochastic solver's is that of the
    standard deviation.

    **bound**: Σ_i \|W_i\|·ε̃_i, W being the weights of the solver's plan. It knows nothing of the data. Followed to its
    lowest point it asks for a few enormous steps that real networks do not forgive, so to a fixed end the default
    method limits the longest step in λ (see ``Placement``), within which it finds lower bounds than the published
    method. Up to 7 steps the first three intervals are bounded one by one, the published safeguard: it matters from
    N = 7 downwards, where bounds are several times larger for it.

    Source: of the bound, Xue et al., Accelerating Diffusion Sampling with Optimized Time Steps (arXiv 2402.17376); for
    grids of DDIM and DDPM from a spectrum see also Benita et al. (arXiv 2502.00180).

    Args:
        process: the noising process.
        solver: whose plan is to be optimised; its ``plan`` is called on batches of grids.
        steps: the number of intervals N. Above 60 nothing is searched: the best start is the result, and a warning says
            so. At most 1000.
        objective: "spectrum" or "bound"; by default "bound" where ``error_power`` or ``method`` is given.
        spectrum: of the data: a ``Spectrum``, a name or law as ``fewstep.spectra.named`` takes, or a file of
            ``Spectrum.save``; "pixels" by default.
        floor: an error that is not seen, in units of the data's standard deviation: to the noise-free end, the last
            call is made no later than where one denoising step errs by that.
        error_power: p of ε̃ = σ^p/α (1 for networks in pixel space, 2 in latent space; 1 by default), or ε̃ itself: a
            function of λ, tensor to tensor, or measured pairs (λ, ε̃).
        start: as in the heuristic grids.
        end: as in the heuristic grids.
        boundary: as in the heuristic grids, for the spectrum alone: one of the inner times is this one, whichever is
            best there.
        method: of the bound: "prox-linear", milliseconds, or the published "trust-constr" (SciPy, from uniform λ and
            uniform t).

    Raises:
        InputError: for wrong steps, ends or methods, settings of the other objective, a p that is not positive, an ε̃
            with zeros or NaN, or a wrong spectrum or floor.
    """
    process = as_process(process)
    if not callable(getattr(solver, "plan", None)) or isinstance(solver, type):
        raise InputError(f"solver is {shown(solver)}: give one such as fs.UniPC().")
    unseen = real("floor", floor, 0.0)
    by_bound = _by_bound(
        objective, spectrum=spectrum, floor=unseen or None, boundary=boundary, error_power=error_power, method=method
    )
    steps = checked_steps(steps)
    if steps > MOST:
        raise InputError(f"steps is {steps}: optimized grids have at most {MOST}; take uniform_logsnr.")
    last, to_zero = span(process, end)
    to_zero = to_zero or last == 0
    last = last or process.t_min
    began = time.perf_counter()
    first = beginning(process, start, last)
    pure = bool(torch.isinf(process.half_logsnr(first)))
    begins = process.t_max if pure else first
    measure: Bound | SpectralError
    power: ErrorPower = 1 if error_power is None else error_power
    if by_bound:
        measure = Bound(process, solver, power, to_zero=to_zero)
    else:
        data = named("pixels" if spectrum is None else spectrum)
        measure = SpectralError(process, solver, data)
        latest = cleanest(process, data, unseen) if to_zero else last
        last = min(max(last, latest), 0.5 * (begins + last))  # A start that is cleaner still is left some way to go.
    if boundary is not None:
        boundary = checked_boundary(boundary, begins, last, steps - int(to_zero))
    starts = torch.stack([_to(make, process, steps, begins, last, to_zero, boundary) for make in STARTS.values()])
    candidates, iterations, used = starts, 0, "heuristic"
    with _one_thread():
        before = measure(starts)
        if steps > SEARCHED:
            warnings.warn(
                f"with more than {SEARCHED} steps the best of the heuristic grids is taken: a search gains nothing.",
                UserWarning,
                stacklevel=2,
            )
        elif isinstance(measure, Bound):
            used = method or "prox-linear"
            placement = Placement(process, steps, begins, last, to_zero)
            run = trust_region_search if used == "trust-constr" else prox_linear_search
            found, iterations = run(measure, placement, starts) if placement.free else (starts[:0], 0)
            candidates = torch.cat([found, starts])
        else:
            used = "log-newton"
            found, iterations = log_newton_search(measure, placements(process, steps, begins, last, to_zero, boundary))
            candidates = torch.cat([found, starts])
        values = measure(candidates)
    best = int(values.argmin())
    report = OptimizationReport(
        before=dict(zip(STARTS, before.tolist(), strict=True)),
        after=float(values[best]),
        objective="bound" if by_bound else "spectrum",
        method=used,
        error_power=as_real(power) if by_bound else None,
        iterations=iterations,
        seconds=time.perf_counter() - began,
    )
    times = candidates[best]
    times[0] = first
    return OptimizedGrid(process, times, report)


def _to(
    make: Callable[..., TimeGrid],
    process: Process,
    steps: int,
    start: float,
    last: float,
    to_zero: bool,
    boundary: float | None,
) -> Tensor:
    """Return the times of a heuristic grid that ends at ``last``, or goes to the noise-free end from there."""
    if not to_zero:
        return make(process, steps, start=start, end=last, boundary=boundary).times
    inner = (
        make(process, steps - 1, start=start, end=last, boundary=boundary).times if steps > 1 else torch.tensor([start])
    )
    return torch.cat([inner.to(torch.float64), torch.zeros(1, dtype=torch.float64)])


def _by_bound(objective: str | None, **given: Any) -> bool:
    """Return whether the bound is asked for.

    Raises:
        InputError: for another objective, or settings of the other one.
    """
    if objective is not None:
        as_word("objective", objective, ("spectrum", "bound"))
    if given["method"] is not None:
        as_word("method", given["method"], ("prox-linear", "trust-constr"))
    there = {name: value is not None for name, value in given.items()}
    by_bound = there["error_power"] or there["method"] if objective is None else objective == "bound"
    for name in ("spectrum", "floor", "boundary") if by_bound else ("error_power", "method"):
        if there[name]:
            other = "spectrum" if by_bound else "bound"
            raise InputError(
                f"{name}={shown(given[name])} belongs to objective={other!r}: leave it out, or write that."
            )
    return by_bound


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch on one thread: handing such small tables to others takes longer than the work itself."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

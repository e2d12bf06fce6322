"""Time steps that minimise the error bound of the solver in use."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from scipy.optimize import LinearConstraint, minimize
from torch import Tensor

from fewstep.checks import as_real, as_word, shown
from fewstep.errors import InputError
from fewstep.grids.bound import SAFEGUARDED, Bound, ErrorPower
from fewstep.grids.heuristic import (
    End,
    Start,
    beginning,
    checked_steps,
    karras,
    quadratic_time,
    span,
    uniform_logsnr,
    uniform_time,
)
from fewstep.grids.newton import newton
from fewstep.grids.placement import Placement
from fewstep.grids.prox_linear import prox_linear
from fewstep.grids.registry import registered
from fewstep.processes import Process
from fewstep.processes.base import as_process
from fewstep.time_grid import TimeGrid

if TYPE_CHECKING:
    from fewstep.solvers.base import Solver

__all__ = ["OptimizedGrid", "OptimizationReport", "optimized"]

STARTS = {
    "uniform_logsnr": uniform_logsnr,
    "uniform_time": uniform_time,
    "quadratic_time": quadratic_time,
    "karras": karras,
}
Method = Literal["prox-linear", "trust-constr"]
MAIN, POLISH = 16, 8
SEARCHED = 60
"""The most steps for which times are searched."""
MOST = 1000
"""The most steps for which bounds are computed: the work grows with their square."""


@dataclass(frozen=True)
class OptimizationReport:
    """What an optimisation did: the bound of each start, of the result, and the work."""

    before: dict[str, float]
    after: float
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
    error_power: ErrorPower = 1,
    start: Start = None,
    end: End = None,
    method: Method = "prox-linear",
) -> OptimizedGrid:
    r"""Return the grid that minimises Σ_i \|W_i\|·ε̃_i, W being the weights of ``solver``'s own plan.

    The first time and the last one are fixed, as in the heuristic grids (from α = 0 the grid is optimised from
    ``t_max``, and its first time then moved there); with ``end="zero"`` the last
    time before the noise-free end is free too, down to ``t_min``, and costs the last prediction's own error. It
    works for any solver with a plan, any process and any error profile; it is deterministic, and never returns a
    grid whose bound is above that of a start (uniform λ, uniform t, quadratic, Karras).

    The bound is a model of the error, not the error. Followed to its lowest point it asks for a few enormous
    steps that real networks do not forgive, so to a fixed end the default method limits the longest step in λ (see
    ``Placement``), within which it finds lower bounds than the published method. Up to 7 steps the first
    three intervals are bounded one by one, the published safeguard: it matters from N = 7 downwards, where
    bounds are several times larger for it.

    Source: Xue et al., Accelerating Diffusion Sampling with Optimized Time Steps (arXiv 2402.17376).

    Args:
        process: the noising process.
        solver: whose plan is to be bounded; its ``plan`` is called on batches of grids.
        steps: the number of intervals N. Above 60 nothing is searched: the best start is the result, and a warning says
            so. At most 1000.
        error_power: p of ε̃ = σ^p/α (1 for networks in pixel space, 2 in latent space), or ε̃ itself: a function
            of λ, tensor to tensor, or measured pairs (λ, ε̃).
        start: as in the heuristic grids.
        end: as in the heuristic grids.
        method: "prox-linear", milliseconds, or the published "trust-constr" (SciPy, from uniform λ and uniform t).

    Raises:
        InputError: for wrong steps, ends or methods, a p that is not positive, or an ε̃ with zeros or NaN.
    """
    process = as_process(process)
    if not callable(getattr(solver, "plan", None)) or isinstance(solver, type):
        raise InputError(f"solver is {shown(solver)}: give one such as fs.UniPC().")
    as_word("method", method, ("prox-linear", "trust-constr"))
    steps = checked_steps(steps)
    if steps > MOST:
        raise InputError(f"steps is {steps}: optimized grids have at most {MOST}; take uniform_logsnr.")
    last, to_zero = span(process, end)
    to_zero = to_zero or last == 0
    last = last or process.t_min
    began = time.perf_counter()
    bound = Bound(process, solver, error_power, to_zero=to_zero)
    first = beginning(process, start, last)
    pure = bool(torch.isinf(process.half_logsnr(first)))
    placement = Placement(process, steps, process.t_max if pure else first, last, to_zero)
    starts = torch.stack(
        [make(process, steps, start=placement.start, end="zero" if to_zero else last).times for make in STARTS.values()]
    )
    candidates, iterations, used = starts, 0, str(method)
    with _one_thread():
        before = bound(starts)
        if placement.free and steps > SEARCHED:
            used = "heuristic"
            warnings.warn(
                f"with more than {SEARCHED} steps the best of the heuristic grids is taken: a search gains nothing.",
                UserWarning,
                stacklevel=2,
            )
        elif placement.free:
            run = _trust_region if method == "trust-constr" else _fast
            found, iterations = run(bound, placement, starts)
            candidates = torch.cat([found, starts])
        values = bound(candidates)
    best = int(values.argmin())
    report = OptimizationReport(
        before=dict(zip(STARTS, before.tolist(), strict=True)),
        after=float(values[best]),
        method=used,
        error_power=as_real(error_power),
        iterations=iterations,
        seconds=time.perf_counter() - began,
    )
    times = candidates[best]
    times[0] = first
    return OptimizedGrid(process, times, report)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch on one thread: handing such small tables to others takes longer than the work itself."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _fast(bound: Bound, placement: Placement, starts: Tensor) -> tuple[Tensor, int]:
    """Return the result of a finer search from the best that the prox-linear method finds from all starts at once."""

    def terms(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        made, group = bound.terms(placement.times(x))
        return made.numpy(), group.numpy()

    def values(x: np.ndarray) -> np.ndarray:
        return bound(placement.times(placement.project(x))).numpy()

    found, least, main = prox_linear(terms, placement.project, placement.variables(starts), iterations=MAIN)
    best = found[least.argmin()]
    finer, _, more = prox_linear(terms, placement.project, best[None], iterations=POLISH, gain=1e-3)
    if starts.shape[-1] - 1 <= SAFEGUARDED:
        finest, last = newton(values, finer[0])
        finer, more = placement.project(finest[None]), more + last
    return placement.times(finer), main + more


def _trust_region(bound: Bound, placement: Placement, starts: Tensor) -> tuple[Tensor, int]:
    """Return the results of SciPy's trust-constr over λ, from uniform λ and from uniform t, as published."""
    found, iterations = [], 0
    n = placement.free
    difference = np.zeros((n + 1, n))
    difference[np.arange(n), np.arange(n)] = 1.0
    difference[np.arange(1, n + 1), np.arange(n)] = -1.0
    low = np.zeros(n + 1)
    low[0], low[-1] = placement.first, -(placement.first + placement.range)

    def steps_of(logsnr: np.ndarray) -> np.ndarray:
        """Return the steps in λ [1, n], all positive: differences may look a little beyond the constraint."""
        end = [] if placement.to_zero else [-low[-1]]
        h = np.maximum(np.diff(np.concatenate([[placement.first], logsnr, end])), 1e-6 * placement.range)
        return (h if placement.to_zero else h * placement.range / h.sum())[None]

    def objective(logsnr: np.ndarray) -> float:
        return float(bound(placement.times_of_steps(steps_of(logsnr)))[0])

    for start in placement.steps(starts[:2]):
        logsnr = placement.first + start.cumsum()[:n]
        result = minimize(objective, logsnr, method="trust-constr", constraints=[LinearConstraint(difference, low)])
        found.append(placement.times_of_steps(steps_of(result.x)))
        iterations += int(result.nit)
    return torch.cat(found), iterations

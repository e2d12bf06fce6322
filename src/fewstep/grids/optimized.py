"""Time steps that minimise the error bound of the solver in use."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.optimize import LinearConstraint, minimize
from torch import Tensor

from fewstep.errors import InputError, unknown_name
from fewstep.grids.bound import SAFEGUARDED, Bound, ErrorPower, Planner
from fewstep.grids.heuristic import End, checked_steps, karras, quadratic_time, span, uniform_logsnr, uniform_time
from fewstep.grids.prox_linear import Terms, prox_linear
from fewstep.grids.time_grid import TimeGrid
from fewstep.processes import Process

__all__ = ["OptimizedGrid", "Report", "optimized"]

STARTS = {
    "uniform_logsnr": uniform_logsnr,
    "uniform_time": uniform_time,
    "quadratic_time": quadratic_time,
    "karras": karras,
}
Method = Literal["prox-linear", "trust-constr"]
MAIN, POLISH = 16, 14


@dataclass(frozen=True)
class Report:
    """What an optimisation did: the bound of each start, of the result, and the work."""

    before: dict[str, float]
    after: float
    method: str
    error_power: float | None
    iterations: int
    seconds: float


class OptimizedGrid(TimeGrid):
    """A time grid with the ``report`` of the optimisation that made it."""

    def __init__(self, process: Process, times: Tensor, report: Report) -> None:
        super().__init__(process, times)
        self.report = report


def optimized(
    process: Process,
    solver: Planner,
    steps: int,
    *,
    error_power: ErrorPower = 1,
    end: End = None,
    method: Method = "prox-linear",
) -> OptimizedGrid:
    r"""Return the grid that minimises Σ_i \|W_i\|·ε̃_i, W being the weights of ``solver``'s own plan.

    The first time is ``t_max`` and the last one fixed, as in the heuristic grids; with ``end="zero"`` the last
    time before the noise-free end is free too, down to ``t_min``, and costs the last prediction's own error. It
    works for any solver with a plan, any process and any error profile; it is deterministic, and never returns a
    grid whose bound is above that of a start (uniform λ, uniform t, quadratic, Karras).

    The bound is a model of the error, not the error. Followed to its lowest point it asks for a few enormous
    steps that real networks do not forgive, so the default method limits the longest step in λ (see
    ``Placement``), within which it finds lower bounds than the published method. Up to 7 steps the first
    three intervals are bounded one by one, the published safeguard: it matters from N = 7 downwards, where
    bounds are several times larger for it.

    Source: Xue et al., Accelerating Diffusion Sampling with Optimized Time Steps (arXiv 2402.17376).

    Args:
        process: the noising process.
        solver: whose plan is to be bounded; its ``plan`` is called on batches of grids.
        steps: the number of intervals N.
        error_power: p of ε̃ = σ^p/α (1 for networks in pixel space, 2 in latent space), or ε̃ itself: a function
            of λ, tensor to tensor, or measured pairs (λ, ε̃).
        end: as in the heuristic grids.
        method: "prox-linear", milliseconds, or the published "trust-constr" (SciPy, from uniform λ and uniform t).

    Raises:
        InputError: for wrong steps, ends or methods, a p that is not positive, or an ε̃ with zeros or NaN.
    """
    if not isinstance(process, Process):
        raise InputError(f"process is {process!r}: give one of fewstep.processes, such as VPLinear().")
    if not callable(getattr(solver, "plan", None)):
        raise InputError(f"solver is {solver!r}: give one such as fs.UniPC().")
    if method not in ("prox-linear", "trust-constr"):
        raise unknown_name("method", method, ("prox-linear", "trust-constr"))
    steps = checked_steps(steps)
    last, to_zero = span(process, end)
    to_zero = to_zero or last == 0
    last = last or process.t_min
    began = time.perf_counter()
    bound = Bound(process, solver, error_power, to_zero=to_zero)
    placement = Placement(process, steps, last, to_zero)
    starts = torch.stack([make(process, steps, end="zero" if to_zero else last).times for make in STARTS.values()])
    before = bound(starts)
    candidates, iterations = starts, 0
    if placement.free:
        run = _trust_region if method == "trust-constr" else _fast
        found, iterations = run(bound, placement, starts)
        candidates = torch.cat([found, starts])
    values = bound(candidates)
    best = int(values.argmin())
    report = Report(
        before=dict(zip(STARTS, before.tolist(), strict=True)),
        after=float(values[best]),
        method=method,
        error_power=float(error_power) if isinstance(error_power, (int, float)) else None,
        iterations=iterations,
        seconds=time.perf_counter() - began,
    )
    return OptimizedGrid(process, candidates[best], report)


class Placement:
    """Grids by their steps in λ: h [B, n] ↔ times [B, N + 1], with what is fixed put back exactly.

    The steps of a grid with a fixed end add up to the whole range of λ; those to the noise-free end to at most
    that, and are one fewer. ``longest`` is the longest step that the default method takes:
    to the noise-free end 2, or 1.2 times the mean step if that is more; else 2.1 times the mean below 10 steps, which
    lets every bound come below the published method's, and from 10 on 1.5 times but at least 1.5, with 2.3 times for
    the last.
    """

    def __init__(self, process: Process, steps: int, last: float, to_zero: bool) -> None:
        self.process, self.to_zero, self.last = process, to_zero, last
        self.intervals = steps - 1 if to_zero else steps
        self.first = float(process.half_logsnr(process.t_max))
        self.range = float(process.half_logsnr(last)) - self.first
        self.free = self.intervals if to_zero else self.intervals - 1
        mean = self.range / steps
        if to_zero:
            self.longest = self.longest_last = max(2.0, 1.2 * self.range / max(self.intervals, 1))
        else:
            self.longest = 2.1 * mean if steps < 10 else max(1.5, 1.5 * mean)
            self.longest_last = 2.3 * mean

    def times(self, h: np.ndarray) -> Tensor:
        """Return the times of steps ``h`` [B, n]."""
        logsnr = self.first + np.concatenate([np.zeros((len(h), 1)), h.cumsum(1)], axis=1)
        times = self.process.time(torch.from_numpy(logsnr))
        times[:, 0] = self.process.t_max
        if self.to_zero:
            return torch.cat([times, torch.zeros(len(h), 1, dtype=torch.float64)], dim=1)
        times[:, -1] = self.last
        return times

    def steps(self, times: Tensor) -> np.ndarray:
        """Return the steps in λ of ``times`` [B, N + 1], without one to the noise-free end."""
        logsnr = self.process.half_logsnr(times[:, :-1] if self.to_zero else times)
        return logsnr.diff(dim=-1).numpy()

    def project(self, log_h: np.ndarray) -> np.ndarray:
        """Return log steps that fit: at least a hundredth of the mean, at most the longest step, of the right sum."""
        h = np.maximum(np.exp(log_h), 1e-2 * self.range / self.intervals)
        limit = np.append(np.full(self.intervals - 1, self.longest), self.longest_last)
        if self.to_zero:
            h = np.minimum(h, limit)
            return np.log(h * np.minimum(1.0, self.range / h.sum(-1, keepdims=True)))
        h *= self.range / h.sum(-1, keepdims=True)
        for _ in range(8):
            h = np.minimum(h, limit)
            loose = h < limit
            missing = self.range - np.where(loose, 0.0, h).sum(-1, keepdims=True)
            h = np.where(loose, h * missing / np.where(loose, h, 0.0).sum(-1, keepdims=True), h)
        return np.log(h)


def _fast(bound: Bound, placement: Placement, starts: Tensor) -> tuple[Tensor, int]:
    """Return the results of the prox-linear method from all starts at once, and of a finer search from the best."""

    def terms(log_h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        made, group = bound.terms(placement.times(np.exp(log_h)))
        return made.numpy(), group.numpy()

    log_h = prox_linear(terms, placement.project, np.log(placement.steps(starts)), iterations=MAIN)
    made, group = terms(log_h)
    best = log_h[np.sqrt(made**2 @ group).sum(-1).argmin()]
    if starts.shape[-1] - 1 > SAFEGUARDED:
        finer = prox_linear(terms, placement.project, best[None], iterations=POLISH, inner=24)
        return placement.times(np.exp(np.concatenate([log_h, finer]))), MAIN + POLISH
    finer, iterations = _smooth_search(terms, placement.project, best)
    return placement.times(np.exp(np.concatenate([log_h, finer]))), MAIN + iterations


def _smooth_search(
    terms: Terms, project: Callable[[np.ndarray], np.ndarray], start: np.ndarray
) -> tuple[np.ndarray, int]:
    """Return the result of BFGS [1, n]: with the safeguard the bound is smooth almost everywhere."""
    shift = 1e-6 * np.eye(len(start))

    def objective(log_h: np.ndarray) -> tuple[float, np.ndarray]:
        made, group = terms(project(np.concatenate([log_h[None], log_h + shift, log_h - shift])))
        values = np.sqrt(made**2 @ group).sum(-1)
        ahead, behind = values[1 : 1 + len(start)], values[1 + len(start) :]
        return values[0], (ahead - behind) / 2e-6

    result = minimize(objective, start, jac=True, method="BFGS", options={"maxiter": POLISH})
    return project(result.x[None]), int(result.nit)


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
        return float(bound(placement.times(steps_of(logsnr)))[0])

    for start in placement.steps(starts[:2]):
        logsnr = placement.first + start.cumsum()[:n]
        result = minimize(objective, logsnr, method="trust-constr", constraints=[LinearConstraint(difference, low)])
        found.append(placement.times(steps_of(result.x)))
        iterations += int(result.nit)
    return torch.cat(found), iterations

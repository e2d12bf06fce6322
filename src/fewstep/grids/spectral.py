"""The error of a plan on Gaussian data with a spectrum: what spectral time steps minimise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fewstep.grids.log_newton import log_newton
from fewstep.plan import Plan
from fewstep.processes import Process
from fewstep.processes.spec import parse
from fewstep.spectra import Spectrum, named
from fewstep.spectra.gaussian import end_errors, interval_errors
from fewstep.spectra.nodes import nodes
from fewstep.time_grid import TimeGrid

if TYPE_CHECKING:
    from fewstep.solvers.base import Solver

__all__ = ["LogSteps", "SpectralError", "check_spectrum", "cleanest", "log_newton_search", "placements"]

SHORTEST = 1e-3
"""The shortest step in λ, in units of the mean one."""
ENDS = (0.6, 0.7, 0.8, 0.9, 1.0)
"""Where starts end: the share of the range of λ that they cover."""
BENDS = (-0.5, 0.0, 0.5, 1.0)
"""How much longer the last steps in λ of a start are than its first ones: the logarithm of the ratio."""
KEPT = 2
"""How many starts are followed."""
PLACES = 3
"""How many inner times are tried on a boundary."""
LEAST = 1e-12
"""The smallest error of an interval that is told from none."""


class SpectralError:
    r"""Σ_n √(mean_k e_{k,n}²): the sizes of what each interval adds to the error at the end, added up.

    e_{k,n} is the error of interval n alone in mode k (``fewstep.spectra.gaussian.local_errors``), in units of the
    data. The mean runs over the modes of the spectrum, and of the spectrum times 1/3 and 3 relative to their size, so
    that no grid is best by a coincidence.
    """

    def __init__(self, process: Process, solver: Solver, spectrum: Spectrum) -> None:
        self.process, self.solver = process, solver
        self.variances, self.weights = nodes(spectrum)

    def __call__(self, times: Tensor) -> Tensor:
        """Return the error of each grid, float64 [B], for times [B, N + 1]."""
        return self.terms(times).sum(-1)

    def terms(self, times: Tensor) -> Tensor:
        """Return what each interval adds, float64 [B, N]."""
        return interval_errors(self._plan(times), self.variances, self.weights).clamp(min=LEAST)

    def likely(self, times: Tensor) -> Tensor:
        r"""Return what a network's error is likely to be, √(mean_k e_k²) + ½·Σ_n √(mean_k e_{k,n}²), float64 [B].

        e_k is the exact error at the end, in which errors of intervals cancel as they do on Gaussian data. Networks
        grant part of that: measured errors of different solvers and grids rank by this, better than by either part. It
        is not what to minimise, for its lowest point relies on what cancels.
        """
        exact = end_errors(self._plan(times), self.variances).square() @ self.weights
        return exact.sqrt() + 0.5 * self(times)

    def _plan(self, times: Tensor) -> Plan:
        return self.solver.plan(TimeGrid(self.process, times))


class LogSteps:
    """Grids by the logarithms of their steps in λ, as variables x [B, n] ↔ times [B, N + 1]; fixed times are exact.

    To the noise-free end the steps may cover less than the range of λ, and cover no more; to a fixed end just that.
    With a boundary, a time and the number of the inner time that is there, the steps before it cover just the range up
    to it.
    """

    def __init__(
        self,
        process: Process,
        steps: int,
        start: float,
        last: float,
        to_zero: bool,
        boundary: tuple[float, int] | None = None,
    ) -> None:
        self.boundary = boundary
        self.process, self.to_zero, self.start, self.last = process, to_zero, start, last
        self.count = steps - 1 if to_zero else steps
        self.first = float(process.half_logsnr(start))
        self.range = float(process.half_logsnr(last)) - self.first
        self.free = self.count if to_zero else self.count - 1

    def times(self, x: np.ndarray) -> Tensor:
        """Return the times of ``x`` [B, n]."""
        h = np.maximum(np.exp(x), SHORTEST * self.range / self.count)
        rest = self.range
        if self.boundary is not None:
            reached, before = float(self.process.half_logsnr(self.boundary[0])) - self.first, h[:, : self.boundary[1]]
            before *= reached / before.sum(-1, keepdims=True)
            rest -= reached
        after = h[:, 0 if self.boundary is None else self.boundary[1] :]
        share = rest / after.sum(-1, keepdims=True)
        after *= np.minimum(share, 1.0) if self.to_zero else share
        logsnr = self.first + np.concatenate([np.zeros((len(h), 1)), h.cumsum(1)], axis=1)
        times = self.process.time(torch.from_numpy(logsnr))
        times[:, 0] = self.start
        if self.boundary is not None:
            times[:, self.boundary[1]] = self.boundary[0]
        if self.to_zero:
            return torch.cat([times, torch.zeros(len(h), 1, dtype=torch.float64)], dim=1)
        times[:, -1] = self.last
        return times

    def starts(self) -> np.ndarray:
        """Return where to start from: steps that grow or shrink evenly, over parts of the range."""
        ends = ENDS if self.to_zero else (1.0,)
        u = np.linspace(0.0, 1.0, self.count)
        return np.array(
            [np.log(share * self.range * (grown := np.exp(bend * u)) / grown.sum()) for share in ends for bend in BENDS]
        )


def placements(
    process: Process, steps: int, start: float, last: float, to_zero: bool, boundary: float | None = None
) -> list[LogSteps]:
    """Return the variables of a search; with a boundary those for each inner time that may be there."""
    if boundary is None:
        return [LogSteps(process, steps, start, last, to_zero)]
    inner = range(1, steps - int(to_zero))
    return [LogSteps(process, steps, start, last, to_zero, (boundary, place)) for place in inner]


def log_newton_search(measure: SpectralError, tried: Sequence[LogSteps]) -> tuple[Tensor, int]:
    """Return the grids [S, N + 1] that Newton's method finds from the best starts, and its iterations."""
    steps = tried[0]
    if not steps.free:
        return torch.zeros(0, steps.count + 1 + int(steps.to_zero), dtype=torch.float64), 0
    starts = steps.starts()
    first = [_terms(measure, one)(starts).sum(-1) for one in tried]
    found, iterations = [], 0
    for place in sorted(range(len(tried)), key=lambda place: first[place].min())[:PLACES]:
        chosen = first[place].argsort(kind="stable")[:KEPT]
        best, _, took = log_newton(_terms(measure, tried[place]), starts[chosen])
        found.append(tried[place].times(best))
        iterations += took
    return torch.cat(found), iterations


def _terms(measure: SpectralError, steps: LogSteps) -> Callable[[np.ndarray], np.ndarray]:
    def terms(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return measure.terms(steps.times(x)).numpy()

    return terms


def cleanest(process: Process, spectrum: Spectrum, floor: float) -> float:
    r"""Return the time, at least ``t_min``, at which D(x_t) errs by ``floor`` standard deviations of the data.

    On Gaussian data D(x_t) less the solution is √v·(1 − (1 + e^{−2λ}/v)^{−1/2}) in a mode of variance v.
    """
    v, weights = nodes(spectrum, (1.0,))
    low, high = (float(process.half_logsnr(t)) for t in (process.t_max, process.t_min))
    least = (floor * spectrum.total**0.5) ** 2
    for _ in range(60 if floor > 0 else 0):
        middle = 0.5 * (low + high)
        lost = v * torch.special.expm1(-0.5 * torch.log1p(np.exp(-2.0 * middle) / v)).square()
        low, high = (middle, high) if float(lost @ weights) > least else (low, middle)
    return float(process.time(high))


def check_spectrum(grid: object, shape: Sequence[int] | None) -> None:
    """Refuse a grid's name, as "optimized:spectrum=FILE.json", whose spectrum is of samples of another shape.

    Args:
        grid: as it is written; what is no name has nothing to check.
        shape: of the model's samples: channels and sizes, or channels alone where sizes may be chosen.

    Raises:
        InputError: if the file cannot be read, or shapes disagree.
    """
    spec = parse(grid)[1].get("spectrum") if isinstance(grid, str) and grid.startswith("optimized:") else None
    if isinstance(spec, str) and spec.endswith(".json") and shape is not None:
        spectrum = named(spec)
        rest = () if spectrum.shape is None else spectrum.shape[len(shape) :]
        spectrum.check_shape((*shape, *rest))

"""Noises that no coefficient is fitted to: what a fit gained, and whether it is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fewstep.calibration.fitting import Fitting
from fewstep.executor import execute
from fewstep.metrics.bootstrap import bootstrap_interval
from fewstep.plan import Plan
from fewstep.solvers import UniPC

__all__ = ["Gain", "HeldOut", "gain_of"]

MORE = 3
"""So many times more noises are held out where the gain is in doubt."""
RESAMPLES = 2000
WORST = 5
"""So many noises with the largest errors are named."""


@dataclass(frozen=True)
class Gain:
    """Root mean square errors before and after, their ratio, its 95 % bootstrap interval, and what lies behind them.

    ``quantiles`` are the median and the 95th percentile of the noises' errors; ``worst`` the numbers of the noises with
    the largest errors after, with their share of the mean square.
    """

    before: float
    after: float
    gain: float
    low: float
    high: float
    quantiles_before: tuple[float, float]
    quantiles_after: tuple[float, float]
    worst: tuple[tuple[int, float], ...]


@dataclass
class HeldOut:
    """The held-out noises of a calibration, and further ones if they are wanted.

    Attributes:
        fitting: what the plans were fitted by.
        which: the noises.
        draw: so many noises more at the first time, [n, …]; None if there are no others.
    """

    fitting: Fitting
    which: Tensor
    draw: Callable[[int], Tensor] | None = None
    _more: tuple[Tensor, Tensor, Tensor] | None = field(default=None, init=False)
    _errors: dict[Plan, Tensor] = field(default_factory=dict, init=False)

    def score(self, plan: Plan) -> float:
        """Return the product of the mean and the median of the noises' errors: both count, and no noise for much."""
        errors = self._of(plan).sqrt()
        return float(errors.mean() * errors.median())

    def gain(self, before: Plan, after: Plan) -> tuple[Gain, int]:
        """Return what ``after`` gained over ``before``, and on how many noises; on more where it is in doubt."""
        errors, which = [self._of(plan) for plan in (before, after)], self.which
        found = gain_of(errors[0], errors[1], which)
        if found.low <= 1.0 < found.high and self.draw is not None:
            more, x_T, exact = self._further(self.draw)
            errors = [
                torch.cat([first, self.fitting.errors_to(plan, more, x_T, exact)])
                for first, plan in zip(errors, (before, after), strict=True)
            ]
            which = torch.cat([which, more])
            found = gain_of(errors[0], errors[1], which)
        return found, len(which)

    def _of(self, plan: Plan) -> Tensor:
        if plan not in self._errors:
            self._errors[plan] = self.fitting.errors(plan, self.which)
        return self._errors[plan]

    def _further(self, draw: Callable[[int], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the numbers of further noises, their states at the first time and their solutions."""
        if self._more is None:
            network, grid = self.fitting.network, self.fitting.reference.grid
            count = MORE * len(self.which)
            which, x_T = network.num + torch.arange(count), draw(count)
            plan = UniPC(order=3, variant="exact").plan(grid)
            exact = [
                execute(plan, network.bound(which[place]), x_T[place].to(network.device)).cpu()
                for place in torch.arange(count).split(network.batch_size)
            ]
            self._more = which, x_T, torch.cat(exact)
        return self._more


def gain_of(before: Tensor, after: Tensor, which: Tensor) -> Gain:
    """Return the gain from mean square errors [n] of the noises ``which``; the same in each run."""
    tiny = np.finfo(np.float64).tiny

    def ratio(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
        return np.sqrt(one.mean(axis) / np.maximum(other.mean(axis), tiny))

    low, high = bootstrap_interval(ratio, before.numpy(), after.numpy(), draws=RESAMPLES)
    rms = float(before.mean()) ** 0.5, float(after.mean()) ** 0.5
    quantiles = [errors.sqrt().quantile(torch.tensor([0.5, 0.95], dtype=errors.dtype)) for errors in (before, after)]
    largest = after.topk(min(WORST, len(after)))
    share = largest.values / after.sum().clamp(min=float(tiny))
    return Gain(
        *rms,
        rms[0] / max(rms[1], float(tiny)),
        low,
        high,
        (float(quantiles[0][0]), float(quantiles[0][1])),
        (float(quantiles[1][0]), float(quantiles[1][1])),
        tuple(zip(which[largest.indices].tolist(), share.tolist(), strict=True)),
    )

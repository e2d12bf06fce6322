"""Held-out noises judged together: the Fréchet distance of features of their samples."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from fewstep.calibration.held_out import Gain, HeldOut, gain_of
from fewstep.calibration.moment_target import distance
from fewstep.metrics.bootstrap import bootstrap_interval
from fewstep.metrics.frechet import moments_of
from fewstep.metrics.moments import Moments
from fewstep.plan import Plan

__all__ = ["HeldOutMoments"]

RESAMPLES = 300
"""Fewer than of means: each takes two eigendecompositions."""


@dataclass
class HeldOutMoments(HeldOut):
    """Held-out noises whose samples are judged by the Fréchet distance of their features.

    ``target`` holds the moments that the features should have; None stands for those of the noises' solutions.
    """

    target: Moments | None = None
    _features: dict[Plan, Tensor] = field(default_factory=dict, init=False)

    def score(self, plan: Plan) -> float:
        """Return the distance."""
        return self._distance(self._of_plan(plan), self._solved(self.fitting.reference.end[self.which]))

    def gain(self, before: Plan, after: Plan) -> tuple[Gain, int]:
        """Return what ``after`` gained over ``before``, and on how many noises; on more where it is in doubt."""
        plans, which, exact = (before, after), self.which, self._solved(self.fitting.reference.end[self.which])
        made = [self._of_plan(plan) for plan in plans]
        found = self._gained(made, exact, which)
        if found.low <= 1.0 < found.high and self.draw is not None:
            more, x_T, further = self._further(self.draw)
            pairs = zip(made, plans, strict=True)
            made = [torch.cat([first, *map(_flat, self.fitting.ends(plan, more, x_T))]) for first, plan in pairs]
            which, exact = torch.cat([which, more]), torch.cat([exact, self._solved(further)])
            found = self._gained(made, exact, which)
        return found, len(which)

    def _gained(self, made: list[Tensor], exact: Tensor, which: Tensor) -> Gain:
        """Return the gain in the distance, from features [n, d]; what it says of single noises is of their features."""
        before, after = (self._distance(features, exact) for features in made)
        tiny = float(np.finfo(np.float64).tiny)

        def ratio(drawn: np.ndarray) -> float:
            some = torch.from_numpy(drawn.astype(np.int64))
            found = [self._distance(features[some], exact[some]) for features in made]
            return found[0] / max(found[1], tiny)

        low, high = bootstrap_interval(ratio, np.arange(len(which)), draws=RESAMPLES, vectorized=False)
        first, last = ((features - exact).square().mean(1) for features in made)
        noises = gain_of(first, last, which)
        return replace(noises, before=before, after=after, gain=before / max(after, tiny), low=low, high=high)

    def _distance(self, features: Tensor, exact: Tensor) -> float:
        return distance(features, moments_of(exact) if self.target is None else self.target)

    def _of_plan(self, plan: Plan) -> Tensor:
        """Return the features of the held-out noises' samples, float64 [n, d]."""
        if plan not in self._features:
            x_T = self.fitting.reference.state(float(plan.times[0]), self.which)
            self._features[plan] = torch.cat([_flat(ends) for ends in self.fitting.ends(plan, self.which, x_T)])
        return self._features[plan]

    def _solved(self, exact: Tensor) -> Tensor:
        return torch.cat([_flat(self.fitting.compared(part).double()) for part in exact.split(self._block)])

    @property
    def _block(self) -> int:
        return self.fitting.network.batch_size


def _flat(values: Tensor) -> Tensor:
    return values.flatten(1)

"""All rows at once, and the times if wanted, fitted to the moments of features of the final samples."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fewstep.calibration.final_problem import FinalProblem
from fewstep.calibration.gauss_newton import Point
from fewstep.calibration.least_squares import NormalEquations
from fewstep.calibration.moment_target import MomentTarget, distance
from fewstep.calibration.student import Table

__all__ = ["DistributionProblem"]

DERIVED = 64
"""The most noises that derivatives are taken on, the costly part."""


@dataclass(frozen=True)
class DistributionProblem(FinalProblem):
    """The same parameters as ``FinalProblem``'s; the error is the Fréchet distance to ``target``.

    Its derivative is exact, its curvature that at the target.
    """

    target: MomentTarget | None = None
    most_derived: int = DERIVED

    @classmethod
    def like(cls, problem: FinalProblem, target: MomentTarget) -> DistributionProblem:
        """Return the problem with the parameters and runs of another."""
        return cls(**{one.name: getattr(problem, one.name) for one in fields(problem)}, target=target)

    def evaluate(self, theta: Tensor) -> Point | None:
        """Return the point at θ, None if its times cannot be a grid."""
        table = self._table(theta)
        if table is None:
            return None
        error = distance(self._all_features(table), self._target.moments)
        return Point(theta, error + float(theta @ self._penalty @ theta), table)

    def linearise(self, point: Point) -> NormalEquations:
        """Return the normal equations over θ, of one residual for all noises; derivatives are taken on some of them."""
        tables, steps, starts = self._perturbed(point.theta)
        sizes = torch.tensor(steps, dtype=torch.float64)[:, None, None]
        features = self._all_features(point.detail)
        some = torch.linspace(0, len(self.which) - 1, min(len(self.which), self.most_derived)).round().long()
        moved = []
        for place in some.split(self.network.batch_size):
            made = [self._flat(run.state) for run in self._ends(point.detail, tables, starts, self.which[place])]
            moved.append((torch.stack(made[1:]) - made[0]) / sizes)
        changed, share = torch.cat(moved, 1), len(self.which) / len(some)
        units = self._target.changes(features[some], changed)
        pull = share * (changed * self._target.pull(features)[some]).sum((1, 2)) - self._penalty @ point.theta
        return NormalEquations(
            (units @ units.T + self._penalty)[None], pull[None], torch.tensor([point.error], dtype=torch.float64)
        )

    @property
    def _target(self) -> MomentTarget:
        assert self.target is not None
        return self.target

    def _all_features(self, table: Table) -> Tensor:
        """Return the features of the samples of all noises, float64 [n, d]."""
        return torch.cat([self._flat(self._run(table, part)) for part in self.network.blocks(self.which)])

    def _flat(self, ends: Tensor) -> Tensor:
        return self.compared(ends).flatten(1).double()

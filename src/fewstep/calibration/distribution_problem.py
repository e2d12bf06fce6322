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


@dataclass(frozen=True)
class DistributionProblem(FinalProblem):
    """The same parameters as ``FinalProblem``'s; the error is the Fréchet distance to ``target``.

    Its derivative is exact, its curvature that at the target.
    """

    target: MomentTarget | None = None

    @classmethod
    def like(cls, problem: FinalProblem, target: MomentTarget) -> DistributionProblem:
        """Return the problem with the parameters and runs of another."""
        return cls(**{one.name: getattr(problem, one.name) for one in fields(problem)}, target=target)

    def evaluate(self, theta: Tensor) -> Point | None:
        """Return the point at θ, None if its times cannot be a grid."""
        table = self._table(theta)
        if table is None:
            return None
        features = torch.cat([self._features(table, part) for part in self._parts()])
        error = distance(features, self._target.moments)
        return Point(theta, error + float(theta @ self._penalty @ theta), table)

    def linearise(self, point: Point) -> NormalEquations:
        """Return the normal equations over θ, of one residual for all noises."""
        tables, steps, starts = self._perturbed(point.theta)
        sizes = torch.tensor(steps, dtype=torch.float64)[:, None, None]
        features, moved = [], []
        for part in self._parts():
            made = [self._flat(end) for end in self._ends(point.detail, tables, starts, part)]
            features.append(made[0])
            moved.append((torch.stack(made[1:]) - made[0]) / sizes)
        at, changed = torch.cat(features), torch.cat(moved, 1)
        units = self._target.changes(at, changed)
        pull = (changed * self._target.pull(at)).sum((1, 2)) - self._penalty @ point.theta
        return NormalEquations(
            (units @ units.T + self._penalty)[None], pull[None], torch.tensor([point.error], dtype=torch.float64)
        )

    @property
    def _target(self) -> MomentTarget:
        assert self.target is not None
        return self.target

    def _parts(self) -> list[Tensor]:
        return list(self.network.blocks(self.which))

    def _features(self, table: Table, part: Tensor) -> Tensor:
        return self._flat(self._run(table, part))

    def _flat(self, ends: Tensor) -> Tensor:
        return self.compared(ends).flatten(1).double()

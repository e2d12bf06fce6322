"""The noise of each step, and all rows at once, fitted to the moments of features of the final samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from fewstep.calibration.base_plan import base_plan
from fewstep.calibration.distribution_problem import DistributionProblem
from fewstep.calibration.features import Units, feature_matrix
from fewstep.calibration.gauss_newton import Point
from fewstep.calibration.network import CountedNetwork
from fewstep.calibration.student import Student, Table
from fewstep.errors import InputError
from fewstep.executor import folded, step_noise
from fewstep.plan import Plan
from fewstep.solvers import SASolver
from fewstep.solvers.tau import Tau
from fewstep.time_grid import TimeGrid

__all__ = ["TauProblem", "TauTables", "measured_units", "noise_of"]

LEAST = 1e-6
"""The least τ² of a step: without any noise later steps would have that of the draw before."""
DIGITS = 4
"""Decimals of τ."""
DIFFERENCE = 0.05
"""The step in τ² of the difference quotients."""


@dataclass(frozen=True)
class TauTables:
    """SA-Solver's tables on one grid for any τ of its steps.

    Attributes:
        solver: the orders and the form; its τ is not looked at.
        grid: the times.
        history: predictions whose coefficients are fitted in a row.
    """

    solver: SASolver
    grid: TimeGrid
    history: int

    @cached_property
    def free(self) -> list[int]:
        """The steps that may add noise."""
        plan = folded(base_plan(replace(self.solver, tau=1.0), self.grid, noise=True))
        return torch.nonzero(plan.noise_scale).flatten().tolist()

    def squares(self, tau: Tau) -> Tensor:
        """Return τ² of the steps that may add noise."""
        return tau.at(self.grid)[self.free].square().clamp(min=LEAST)

    def at(self, squares: Tensor) -> Table | None:
        """Return the table with these τ², None if the solver refuses it."""
        tau = [0.0] * self.grid.steps
        for n, square in zip(self.free, squares.tolist(), strict=True):
            tau[n] = round(max(square, LEAST) ** 0.5, DIGITS)
        try:
            plan = base_plan(replace(self.solver, tau=tuple(tau)), self.grid, noise=True)
        except InputError:  # Over noise predictions a large τ is unstable.
            return None
        return Table.of(folded(plan), self.history)


@dataclass(frozen=True)
class TauProblem(DistributionProblem):
    """θ holds τ² of the steps that may add noise, then the rows' deviations from SA-Solver's for these τ.

    The noise of a calibration noise is what ``fs.execute`` draws from its seed; all points of the problem share it.
    """

    taus: TauTables | None = None
    seeds: Sequence[int] = ()

    def at(self, tau: Tau) -> Point | None:
        """Return the point of SA-Solver's rows for τ, None if the solver refuses it."""
        rows = torch.zeros(sum(self.widths), dtype=torch.float64)
        return self.evaluate(torch.cat([self._taus.squares(tau), rows]))

    def evaluate(self, theta: Tensor) -> Point | None:
        """Return the point at θ, with τ² below the least raised to it; None if the solver refuses τ."""
        count = len(self._leading)
        return super().evaluate(torch.cat([theta[:count].clamp(min=LEAST), theta[count:]]))

    @property
    def _leading(self) -> Sequence[int]:
        return self._taus.free

    @property
    def _difference(self) -> float:
        return DIFFERENCE

    def _base(self, leading: Tensor) -> Table | None:
        return self._taus.at(leading)

    def _student(self, table: Table, part: Tensor) -> Student:
        student = super()._student(table, part)
        return replace(student, noise=noise_of(table.plan, student.state, [self.seeds[i] for i in part.tolist()]))

    @property
    def _taus(self) -> TauTables:
        assert self.taus is not None
        return self.taus


def noise_of(plan: Plan, x_T: Tensor, seeds: Sequence[int]) -> tuple[Tensor | None, ...]:
    """Return the noise that ``fs.execute(plan, …, x_T, seeds=seeds)`` draws for each row of a folded plan."""
    draw, found = step_noise(plan, x_T, seeds), []
    for n, scale in enumerate(plan.noise_scale.tolist()):
        found.append(torch.empty_like(x_T) if scale else None)
        if found[-1] is not None:
            draw(found[-1], n)
    return tuple(found)


def measured_units(table: Table, network: CountedNetwork, student: Student, history: int) -> tuple[Units, ...]:
    """Return the units of the features of each row, on the trajectories of ``student`` from the first time on."""
    plan, found = table.plan, []
    for n in range(plan.steps):
        student = student.evaluated(network, table, n)
        count = 1 + min(n + 1, history)
        matrix = feature_matrix(plan.process, plan.times[n], plan.prediction, count - 1)
        gram, sizes = torch.zeros(count, count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
        for i in range(len(student.which)):
            vectors = student.flat(i, count)
            features = matrix @ vectors
            gram += features @ features.T / vectors.shape[1] / len(student.which)
            sizes += vectors.square().mean(1) / len(student.which)
        found.append(Units.of(matrix, gram, sizes, student.state.dtype))
        student = student.stepped(table, n)
    return tuple(found)

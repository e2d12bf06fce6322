"""The stages of a calibration, on one model, one reference and one split of the noises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.calibration.gauss_newton import descend
from fewstep.calibration.network import CountedNetwork
from fewstep.calibration.own_plan import own_plan
from fewstep.calibration.placement import Placement
from fewstep.calibration.reference import Reference
from fewstep.calibration.refine import FinalProblem
from fewstep.calibration.rows import FittedRows, fit_rows
from fewstep.calibration.search import Tried, search_times, some_of
from fewstep.calibration.times import TimesProblem
from fewstep.executor import execute, folded
from fewstep.metrics.bootstrap import bootstrap_interval
from fewstep.plan import Plan
from fewstep.solvers import Solver
from fewstep.time_grid import TimeGrid

__all__ = ["Fitting", "Gain", "Progress", "gain_of"]

Progress = Callable[[str, int, float | None], Any]
"""progress(stage, network calls so far, best root mean square error of the stage so far, or None)."""

FINAL_ROUNDS = 3
SEARCHED_ROUNDS = 8
"""Rounds of fitting all rows to the final samples, and of fitting rows and times together after a search."""
RESAMPLES = 2000


@dataclass(frozen=True)
class Fitting:
    """What all stages share.

    Attributes:
        network: the model, which counts its calls.
        reference: the solution of every noise.
        solver: makes the rows that fits start from.
        which: the noises to fit on.
        history: predictions whose coefficients are fitted in a row.
        progress: told how far it is.
    """

    network: CountedNetwork
    reference: Reference
    solver: Solver
    which: Tensor
    history: int
    progress: Progress

    def placement(self, grid: TimeGrid) -> Placement:
        """Return where the interior times of ``grid`` may go."""
        finite = self.reference.grid.half_logsnr[torch.isfinite(self.reference.grid.half_logsnr)]
        return Placement(grid, float(finite[-1]))

    def searched(self, grid: TimeGrid, budget: int) -> tuple[TimeGrid, list[Tried]]:
        """Return the best grid with the ends of ``grid`` found within ``budget`` network calls, and the starts."""
        some = some_of(self.which, self.reference.end[0].numel())
        problem = TimesProblem(self.placement(grid), self.solver, self.network, self.reference, some, self.history)
        return search_times(problem, lambda: self.network.calls < budget, lambda best: self._tell("times", best))

    def rows(self, grid: TimeGrid) -> FittedRows:
        """Return the rows fitted one by one, ridge and width of each chosen by cross-validation."""
        plan = folded(own_plan(self.solver, grid))
        rows = fit_rows(plan, self.network, self.reference, self.which, history=self.history)
        self._tell("rows", rows.fits[-1].fitted)
        return rows

    def final(self, rows: FittedRows, *, times: bool, features: Callable[[Tensor], Tensor] | None) -> Plan:
        """Return the plan whose rows, and times if they are free, are fitted to the final samples."""
        plan = rows.table.plan
        grid = plan.grid
        placement = self.placement(grid)
        problem = FinalProblem(
            rows,
            self.solver,
            self.network,
            self.reference,
            self.which,
            tuple(1 + min(n + 1, self.history) for n in range(plan.steps)),
            placement if times and plan.steps > 1 and placement.holds(grid) else None,
            features,
            some_of(self.which, self.reference.end[0].numel()),
        )
        rounds = SEARCHED_ROUNDS if times else FINAL_ROUNDS
        point = descend(problem, problem.start(), rounds, report=lambda p: self._tell("final", p.error**0.5))
        return point.detail.finished()

    def errors(self, plan: Plan, which: Tensor) -> Tensor:
        """Return the mean square error of the final sample of each noise, float64 [len(which)]."""
        found = []
        for part in self.network.blocks(which):
            x_T = self.reference.state(float(plan.times[0]), part)  # noqa: N806
            end = execute(plan, self.network.bound(part), x_T.to(self.network.device)).cpu()
            found.append((end - self.reference.end[part]).double().square().flatten(1).mean(1))
        return torch.cat(found)

    def _tell(self, stage: str, best: float | None) -> None:
        self.progress(stage, self.network.calls, best)


@dataclass(frozen=True)
class Gain:
    """Root mean square errors before and after, their ratio, and its 95 % bootstrap interval over the noises."""

    before: float
    after: float
    gain: float
    low: float
    high: float


def gain_of(before: Tensor, after: Tensor) -> Gain:
    """Return the gain from mean square errors [n] of the same noises; the same in each run."""
    tiny = np.finfo(np.float64).tiny

    def ratio(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
        return np.sqrt(one.mean(axis) / np.maximum(other.mean(axis), tiny))

    low, high = bootstrap_interval(ratio, before.numpy(), after.numpy(), draws=RESAMPLES)
    rms = float(before.mean()) ** 0.5, float(after.mean()) ** 0.5
    return Gain(*rms, rms[0] / max(rms[1], float(tiny)), low, high)

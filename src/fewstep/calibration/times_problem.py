"""The times as parameters: least squares over a grid whose rows are fitted anew at every trial."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.calibration.gauss_newton import Point
from fewstep.calibration.interior_times import InteriorTimes
from fewstep.calibration.least_squares import Loss, NormalEquations, total, weights
from fewstep.calibration.network import CountedNetwork
from fewstep.calibration.reference import Reference
from fewstep.calibration.rows import FittedRows, Resume, fit_rows
from fewstep.calibration.student import BaseTables, Table
from fewstep.spectra import Spectrum
from fewstep.time_grid import TimeGrid

__all__ = ["TimesProblem"]

SEARCH_RIDGE = 1e-6
"""Fixed while times are searched, so that the error is a smooth function of them."""
DIFFERENCE = 0.12
"""The step in λ of the difference quotients."""


@dataclass(frozen=True)
class TimesProblem:
    r"""Final error over λ of the interior times, the rows fitted for each (variable projection).

    Moving the time t_p changes rows p − 1 and later, so a difference quotient re-runs those alone: N·(N − 1)/2 calls
    a noise for the whole Jacobian.
    """

    placement: InteriorTimes
    tables: BaseTables
    network: CountedNetwork
    reference: Reference
    which: Tensor
    loss: Loss = "square"
    spectrum: Spectrum | None = None
    max_step: float = 0.7

    def at(self, grid: TimeGrid) -> Point:
        """Return the point of a grid that need not be one of ``placement.grid``."""
        rows = self._fitted(self.tables.on(grid))
        return Point(self.placement.read(grid), total(self._errors(rows), self.loss), rows)

    def evaluate(self, theta: Tensor) -> Point | None:
        """Return the point at interior λ, None if they cannot be a grid."""
        grid = self.placement.grid(theta)
        return None if grid is None else self.at(grid)

    def linearise(self, point: Point) -> NormalEquations:
        """Return the normal equations over the interior λ, by difference quotients."""
        base: FittedRows = point.detail
        columns = []
        for p in range(len(point.theta)):
            moved, step = self._moved(point.theta, p)
            if moved is None:  # no room on either side: the time stays
                columns.append(torch.zeros_like(base.end))
                continue
            rows = self._fitted(self.tables.on(moved), Resume(base, p))
            columns.append((rows.end - base.end) / step)
        residual = self.reference.end[self.which] - base.end
        equations = NormalEquations.of(
            (torch.stack([c[i].reshape(-1) for c in columns]).double(), residual[i].reshape(-1).double())
            for i in range(len(self.which))
        )
        return equations.weighted(weights(self._errors(base), self.loss))

    def _errors(self, rows: FittedRows) -> Tensor:
        return self.reference.errors(rows.end, self.which)

    def _moved(self, theta: Tensor, p: int) -> tuple[TimeGrid | None, float]:
        for step in (DIFFERENCE, -DIFFERENCE, DIFFERENCE / 4, -DIFFERENCE / 4):
            other = theta.clone()
            other[p] += step
            grid = self.placement.grid(other)
            if grid is not None:
                return grid, step
        return None, 0.0

    def _fitted(self, table: Table, resume: Resume | None = None) -> FittedRows:
        return fit_rows(
            table,
            self.network,
            self.reference,
            self.which,
            history=self.tables.history,
            ridge=SEARCH_RIDGE,
            loss=self.loss,
            resume=resume,
        )

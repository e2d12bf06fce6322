"""DPM-Solver++: multistep, data prediction, orders 1 to 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from fewstep.errors import unknown_name
from fewstep.plan import Plan
from fewstep.processes.base import on_host
from fewstep.solvers.adams import Coefficients, Intervals, adams, exponential_moments
from fewstep.solvers.base import Solver, check_order
from fewstep.solvers.multistep import Multistep, multistep
from fewstep.solvers.shortcuts import half_slope
from fewstep.time_grid import TimeGrid

__all__ = ["DPMSolverPP"]


@dataclass(frozen=True)
class DPMSolverPP(Solver):
    r"""DPM-Solver++, multistep over data predictions: orders 1 to 3, one call a step.

        x_end = (σ_end/σ)·x + α_end·∫_{−h}^0 e^s·D(s) ds, D a polynomial in λ through past predictions.

    Order 2 is the published midpoint row, half a slope: (1 − e^{−h})·[D_0 + ½·(D_0 − D_{−1})·h/h_{−1}].
    At order 3 the published row (diffusers, k-diffusion, the authors' code) holds one half of the
    polynomial's quadratic term, and so converges with order 2 only; ``variant="published"`` is that row,
    "exact" integrates the polynomial and converges with order 3. Orders 1 and 2 are the same in both.

    Equals: ``order=1`` is ``Euler()``; ``order=2`` is ``UniPC(2, "bh2", corrector=False)``;
    ``variant="published"`` is diffusers' DPMSolverMultistepScheduler on the same sigmas, which from 15 steps on takes
    no lower order at the end but to σ = 0: there it is ``lower_order_final=False``.

    Source: Lu et al., DPM-Solver++ (arXiv 2211.01095), algorithm 2 and appendix A.

    Args:
        order: 1 to 3.
        variant: "exact" or "published".
        lower_order_final: whether the order falls at the end, 3, 2, 1.

    Raises:
        InputError: for another order or variant.
    """

    order: int = 2
    variant: Literal["exact", "published"] = "exact"
    lower_order_final: bool = True

    def __post_init__(self) -> None:
        """Check the settings."""
        check_order("order", self.order, 1, 3)
        if self.variant not in ("exact", "published"):
            raise unknown_name("variant", self.variant, ("exact", "published"))

    @on_host
    def plan(self, grid: TimeGrid) -> Plan:
        """Return the table: one row an intervals."""
        schedule = Multistep(order=self.order, lower_order_final=self.lower_order_final)
        return multistep(grid, schedule, self._rule, solver=repr(self))

    def _rule(self, intervals: Intervals, order: int) -> Coefficients:
        if order == 2:
            return half_slope(intervals, -1, -torch.expm1(-intervals.h))
        row = adams(intervals, range(0, -order, -1))
        return _half_curvature(intervals, row) if order == 3 and self.variant == "published" else row


def _half_curvature(intervals: Intervals, row: Coefficients) -> Coefficients:
    """Return the exact third-order row less half of its quadratic term, ½·∫ e^s·(s + h)² ds·D[0, −1, −2]."""
    m_0, m_1, m_2 = exponential_moments(intervals.h, 3).unbind(-1)
    first, second = (-intervals.positions([-1, -2]) - 1.0).unbind(-1)
    curvature = torch.stack(
        [1.0 / (first * second), -1.0 / (first * (second - first)), 1.0 / (second * (second - first))], dim=-1
    )
    half = 0.5 * intervals.alpha_end * (m_2 + 2.0 * m_1 + m_0)
    return Coefficients(
        state_weight=row.state_weight,
        history_weights=row.history_weights - half[..., None] * curvature,
        noise_scale=row.noise_scale,
    )

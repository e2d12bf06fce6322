"""DPM-Solver++: multistep, data prediction, orders 1 to 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from fewstep.errors import unknown_name
from fewstep.solvers.adams import Coefficients, Intervals, adams, exponential_moments
from fewstep.solvers.base import check_order
from fewstep.solvers.multistep import MultistepSolver, Schedule
from fewstep.solvers.shortcuts import half_slope
from fewstep.time_grid import TimeGrid

__all__ = ["DPMSolverPP"]


@dataclass(frozen=True)
class DPMSolverPP(MultistepSolver):
    r"""DPM-Solver++, multistep over data predictions: orders 1 to 3, one call a step.

        x_{n+1} = (σ_{n+1}/σ_n)·x_n + α_{n+1}·∫_{−h}^0 e^s·D(s) ds, h = λ_{n+1} − λ_n, s = λ − λ_{n+1}.

    With D_n the prediction at grid point n, h_j = λ_j − λ_{j−1} (so h = h_{n+1}) and φ_1 = 1 − e^{−h}, the integral is

        order 1: φ_1·D_n;
        order 2: φ_1·D_n + ½·φ_1·(h/h_n)·(D_n − D_{n−1}), the published midpoint row, half a slope;
        order 3: φ_1·D_n + φ_2·D' + φ_3·D'', with φ_2 = h − φ_1 and φ_3 = ½·h² − h + φ_1, D' and D'' the first and
            second derivative at λ_n of the parabola through D_n, D_{n−1}, D_{n−2}.

    At order 3 the published row (diffusers, k-diffusion, the authors' code) takes ½·φ_3, one half of the parabola's
    quadratic term, and so converges with order 2 only; ``variant="published"`` is that row, "exact" integrates the
    parabola and converges with order 3. Orders 1 and 2 are the same in both. The order rises 1, 2, 3 at the start.

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

    name = "dpmpp"
    order: int = 2
    variant: Literal["exact", "published"] = "exact"
    lower_order_final: bool = True

    def __post_init__(self) -> None:
        """Check the settings."""
        check_order("order", self.order, 1, 3)
        if self.variant not in ("exact", "published"):
            raise unknown_name("variant", self.variant, ("exact", "published"))

    def schedule(self, grid: TimeGrid) -> Schedule:
        """Return one row an interval."""
        return Schedule(order=self.order, lower_order_final=self.lower_order_final)

    def predict(self, intervals: Intervals, order: int) -> Coefficients:
        """Return the midpoint rows at order 2, else those of the polynomial, whole or published."""
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

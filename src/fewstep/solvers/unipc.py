"""UniPC: the unified predictor-corrector, data prediction, any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fewstep.errors import unknown_name
from fewstep.solvers.adams import Coefficients, Intervals, adams
from fewstep.solvers.base import check_order
from fewstep.solvers.multistep import MultistepSolver, Schedule
from fewstep.solvers.shortcuts import half_slope
from fewstep.time_grid import TimeGrid

__all__ = ["UniPC"]


@dataclass(frozen=True)
class UniPC(MultistepSolver):
    r"""UniPC, the unified predictor-corrector: orders 1 to 5, one call a step.

    With h = λ_{n+1} − λ_n, D_n the prediction at grid point n, r_i = (λ_{n−i} − λ_n)/h and r_{−1} = 1 that of the new
    point, both rows of a step are

        x_{n+1} = (σ_{n+1}/σ_n)·x_n + α_{n+1}·[(1 − e^{−h})·D_n + Σ_i a_i·(D_{n−i} − D_n)/r_i],

    the predictor's sum running over i = 1 … p − 1 (past points), the corrector's over i = −1, 1, … p − 1. The a_i
    solve Σ_i a_i·r_i^{k−1} = ∫_0^1 h·e^{−h(1−v)}·v^k dv, k = 1, 2, …: the polynomial in λ through the predictions is
    integrated exactly. Two rows of the published variants take half a slope instead,
    a = ½·B(h): the predictor of order 2 and the corrector of order 1, with B(h) = h ("bh1") or 1 − e^{−h} ("bh2");
    "exact" is the polynomial form in these rows too. The order p rises 1, 2, 3 at the start. The corrector re-uses the
    predictor's evaluation, D_{n+1} at the predicted point: N steps cost N calls, the last is not corrected.

    Equals: ``order=1, corrector=False`` is ``Euler()``; ``order=2, variant="bh2", corrector=False`` is
    ``DPMSolverPP(order=2)``; ``variant="exact", corrector=False`` is the predictor of ``SASolver(order, 0,
    tau=0)``; diffusers' UniPCMultistepScheduler on the same sigmas.

    Source: Zhao et al., UniPC (arXiv 2302.04867), algorithms 1-4.

    Args:
        order: 1 to 5.
        variant: "bh1", "bh2" or "exact".
        corrector: whether to correct.
        lower_order_final: whether the order falls at the end, 3, 2, 1.

    Raises:
        InputError: for another order or variant.
    """

    name = "unipc"
    order: int = 3
    variant: Literal["bh1", "bh2", "exact"] = "bh2"
    corrector: bool = True
    lower_order_final: bool = True

    def __post_init__(self) -> None:
        """Check the settings."""
        check_order("order", self.order, 1, 5)
        if self.variant not in ("bh1", "bh2", "exact"):
            raise unknown_name("variant", self.variant, ("bh1", "bh2", "exact"))

    def schedule(self, grid: TimeGrid) -> Schedule:
        """Return a predictor row an interval, and a corrector row in all but the last."""
        return Schedule(
            order=self.order,
            corrector_nodes=(lambda order: order + 1) if self.corrector else None,
            lower_order_final=self.lower_order_final,
        )

    def predict(self, intervals: Intervals, order: int) -> Coefficients:
        """Return the rows through past predictions."""
        if order == 2 and self.variant != "exact":
            return half_slope(intervals, -1, self._scale(intervals.h))
        return adams(intervals, range(0, -order, -1))

    def correct(self, intervals: Intervals, nodes: int) -> Coefficients:
        """Return the rows through the new and past predictions."""
        if nodes == 2 and self.variant != "exact":
            return half_slope(intervals, 1, self._scale(intervals.h))
        return adams(intervals, range(1, 1 - nodes, -1))

    def _scale(self, h: Tensor) -> Tensor:
        return h if self.variant == "bh1" else -torch.expm1(-h)

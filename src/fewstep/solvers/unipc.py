"""UniPC: the unified predictor-corrector, data prediction, any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fewstep.errors import unknown_name
from fewstep.plan import Plan
from fewstep.processes.base import on_host
from fewstep.solvers.adams import Coefficients, Intervals, adams
from fewstep.solvers.base import Solver, check_order
from fewstep.solvers.multistep import Multistep, multistep
from fewstep.solvers.shortcuts import half_slope
from fewstep.time_grid import TimeGrid

__all__ = ["UniPC"]


@dataclass(frozen=True)
class UniPC(Solver):
    r"""UniPC, the unified predictor-corrector: orders 1 to 5, one call a step.

    The predictor runs through ``order`` past predictions, the corrector through these and the new one.
    With h the step in λ, both integrate the polynomial in λ exactly,
    x_end = (σ_end/σ)·x + α_end·∫_{−h}^0 e^s·D(s) ds, but for two rows of the published variants, which
    take half a slope (½·B(h)) instead: the predictor at order 2 and the corrector at order 1, with
    B(h) = h ("bh1") or 1 − e^{−h} ("bh2"). "exact" is the polynomial form in these rows too.
    The corrector re-uses the predictor's evaluation: N steps cost N calls, the last is not corrected.

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

    order: int = 3
    variant: Literal["bh1", "bh2", "exact"] = "bh2"
    corrector: bool = True
    lower_order_final: bool = True

    def __post_init__(self) -> None:
        """Check the settings."""
        check_order("order", self.order, 1, 5)
        if self.variant not in ("bh1", "bh2", "exact"):
            raise unknown_name("variant", self.variant, ("bh1", "bh2", "exact"))

    @on_host
    def plan(self, grid: TimeGrid) -> Plan:
        """Return the table: a predictor row an interval, a corrector row in all but the last."""
        schedule = Multistep(
            order=self.order,
            corrector_nodes=(lambda order: order + 1) if self.corrector else None,
            lower_order_final=self.lower_order_final,
        )
        return multistep(grid, schedule, self._predict, self._correct, solver=repr(self))

    def _predict(self, intervals: Intervals, order: int) -> Coefficients:
        if order == 2 and self.variant != "exact":
            return half_slope(intervals, -1, self._scale(intervals.h))
        return adams(intervals, range(0, -order, -1))

    def _correct(self, intervals: Intervals, nodes: int) -> Coefficients:
        if nodes == 2 and self.variant != "exact":
            return half_slope(intervals, 1, self._scale(intervals.h))
        return adams(intervals, range(1, 1 - nodes, -1))

    def _scale(self, h: Tensor) -> Tensor:
        return h if self.variant == "bh1" else -torch.expm1(-h)

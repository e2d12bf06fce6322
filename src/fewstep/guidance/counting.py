"""The number of network evaluations under guidance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fewstep.checks import flag, shown
from fewstep.denoiser import DataPredictor
from fewstep.errors import InputError
from fewstep.plan import Plan

__all__ = ["evaluations"]


def evaluations(plan: Plan, denoiser: DataPredictor | Callable[..., Tensor], *, conditional: bool = True) -> int:
    """Return how often networks are evaluated for one sample of a plan, under a condition or not.

    ``plan.nfe`` counts the plan's calls of the denoiser. Guidance evaluates its networks twice in a call, or once
    outside its interval; two halves of one batch are two evaluations. Without guidance it is ``plan.nfe``.

    Raises:
        InputError: if ``plan`` is no plan, or a batch of plans.
    """
    if not isinstance(plan, Plan) or plan.times.ndim != 1:
        raise InputError(f"plan is {shown(plan)}: give one fs.Plan, such as solver.plan(grid).")
    conditional = flag("conditional", conditional)
    if not isinstance(denoiser, DataPredictor):
        return plan.nfe
    times: list[Any] = plan.call_times.tolist()
    return sum(denoiser.evaluations(t, conditional) for t in times)

"""Plans in the form that loops outside fewstep take: one row a call, and a formula after the last."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from fewstep.analytic import AnalyticPrediction
from fewstep.errors import InputError
from fewstep.plan import COLUMNS, Plan
from fewstep.processes.base import on_host

__all__ = ["foldable", "folded", "with_last_formula", "without_last_formula"]


@on_host
def foldable(plan: Plan) -> bool:
    """Whether the plan calls the network once an interval, on its predictor's state, and its rows there share noise."""
    return _calls_once(plan) and _shares_noise(plan, *_ends(plan))


def _calls_once(plan: Plan) -> bool:
    """Whether intervals have at most one corrector, the last none, and calls are made by rows after a predictor."""
    predicts = pad(plan.interval.diff() > 0, (1, 0), value=True)
    calls = pad(predicts[:-1], (1, 0), value=True)
    return bool(predicts[-1] and (predicts | calls).all()) and torch.equal(plan.predicts, calls)


def _ends(plan: Plan) -> tuple[Tensor, Tensor]:
    """Return the first and the last row of each interval."""
    intervals = torch.arange(plan.steps)
    return torch.searchsorted(plan.interval, intervals), torch.searchsorted(plan.interval, intervals, right=True) - 1


def _shares_noise(plan: Plan, first: Tensor, last: Tensor) -> bool:
    """Whether q = r·p + … holds for each corrected interval: s ≠ 0 and c' = r·c."""
    first, last = first[last > first], last[last > first]
    ratio = plan.state_weight[..., last] / plan.state_weight[..., first]
    apart = (plan.noise_scale[..., last] - ratio * plan.noise_scale[..., first]).abs()
    return bool(((plan.state_weight[..., first] != 0) & (apart <= 1e-12)).all())


@on_host
def folded(plan: Plan, *, uncorrected: Collection[int] = ()) -> Plan:
    r"""Return the plan with one row an interval that visits the same points of evaluation.

    Predictor and corrector of an interval start from one base x and share its noise: p = s·x + Σ b·D + c·ξ and
    q = s'·x + Σ b'·D + c'·ξ. With r = s'/s and c' = r·c the corrected state is an increment of the predicted one,
    q = r·p + Σ (b' − r·b)·D, and the next predictor, applied to q, is one combination of p and the history. So a
    PEC method is a multistep method over the predicted states, exactly; only the corrected states in between
    never appear. The state given to a row may also be another one than the row before made (an inpainting
    pipeline's): the correction is then added to that one.

    Args:
        plan: one call an interval, at its start and before any correction there; not a batch of plans.
        uncorrected: the intervals whose corrector is left out.

    Raises:
        InputError: if the plan calls the network more or less than once an interval or on a corrected state, or its
            rows do not share their noise.
    """
    if not _calls_once(plan):
        raise InputError(
            f"{plan.solver or 'the plan'} makes {plan.nfe} calls in {plan.steps} steps: stepping from outside needs "
            "one call at the start of each, before a correction; take a solver like UniPC, or the few-step form of "
            "SA-Solver, as 'sa:few_step=True,tau=0.5' or SASolver(..., few_step=True)."
        )
    first, last = _ends(plan)
    last = torch.where(torch.tensor([n in uncorrected for n in range(plan.steps)]), first, last)
    corrected = last > first
    if not _shares_noise(plan, first, last):
        raise InputError(f"{plan.solver or 'the plan'}: predictor and corrector of an interval have different noise.")
    ratio = torch.where(corrected, plan.state_weight[last] / plan.state_weight[first], 1.0)
    # A call later, what a predictor has seen is one place further back in the history.
    seen, older = pad(plan.history_weights, (0, 1)), pad(plan.history_weights, (1, 0))
    increment = torch.where(corrected[:, None], seen[last] - ratio[:, None] * older[first], 0.0)
    state, data = plan.state_weight[first], seen[first]
    data[1:] += state[1:, None] * increment[:-1]
    state[1:] *= ratio[:-1]
    taken = max((formula.past for formula in plan.formulas if formula is not None), default=0)
    width = max(taken, 1 + int(torch.nonzero(data)[:, 1].max()))
    return replace(
        plan,
        interval=torch.arange(plan.steps),
        state_weight=state,
        history_weights=data[:, :width],
        noise_scale=plan.noise_scale[first],
        evaluate=plan.evaluate[plan.predicts],
        analytic=plan.formulas if plan.analytic else (),
    )


@on_host
def with_last_formula(plan: Plan, formula: AnalyticPrediction) -> Plan:
    """Return a fitted plan over data predictions with a row more: ``formula`` of its final state is the final state."""
    weights = pad(plan.history_weights, (0, max(0, formula.past - plan.history_weights.shape[1])))
    newest = torch.zeros_like(weights[-1:])
    newest[0, 0] = 1.0
    return replace(
        plan,
        interval=pad(plan.interval, (0, 1), value=plan.steps - 1),
        state_weight=pad(plan.state_weight, (0, 1)),
        history_weights=torch.cat([weights, newest]),
        noise_scale=pad(plan.noise_scale, (0, 1)),
        evaluate=pad(plan.evaluate, (0, 1)),
        analytic=(*(plan.analytic or (None,) * len(plan.interval)), formula),
    )


@on_host
def without_last_formula(plan: Plan) -> tuple[Plan, AnalyticPrediction | None]:
    """Return the plan that ``with_last_formula`` was given, and the formula; of other plans themselves, and None."""
    if not plan.analytic or plan.analytic[-1] is None or len(plan.interval) < 2:
        return plan, None
    alone = torch.equal(plan.history_weights[-1].nonzero(), torch.zeros(1, 1, dtype=torch.long))
    kept = plan.interval[-1] == plan.interval[-2] and plan.state_weight[-1] == 0.0 and plan.noise_scale[-1] == 0.0
    if not (alone and kept and plan.history_weights[-1, 0] == 1.0):
        return plan, None
    rows = {name: getattr(plan, name)[:-1] for name in COLUMNS}
    analytic = plan.analytic[:-1] if any(formula is not None for formula in plan.analytic[:-1]) else ()
    return replace(plan, **rows, analytic=analytic), plan.analytic[-1]

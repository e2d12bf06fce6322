"""A plan run from outside: the pipeline owns the loop, and hands in one network output at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from fewstep.analytic import AnalyticPrediction
from fewstep.plan import Plan

__all__ = ["Stepper"]

VIEWS = ("_read", "_ring", "_remainder", "_noise", "_finish")


class Stepper:
    r"""A plan with one row a call, turned into rows over what is at hand when a pipeline calls ``step``.

    A prediction is linear in the sample x and the network's output o, H = h·x + k·o. The newest one enters a step by x
    and o themselves, so that no digits of their sum are lost; older ones are kept in a ring, as x + (k/h)·o (as o where
    h = 0), with the factor in their coefficients, which are made in float64. A step is one matrix-vector product over
    the ring (and what the last rounding to half precision took, and noise), the shares of x and o, and one more place
    of the ring written. Its state is the sample that is passed in: a pipeline may change it between steps.

    Args:
        plan: one row and one prediction an interval (see ``fewstep.executor.folded``), analytic ones first if any.
        x0_from: (p, q) of each network call, float64 [nfe, 2]: x0 = p·x + q·o.
        sample: the first sample: shape, device and dtype of the run; half precision is raised to float32 inside.
        limit: what is done to x0, if anything, before it is used.
        last: makes the final state from that of the plan's last step; None leaves it.
    """

    def __init__(
        self,
        plan: Plan,
        x0_from: Tensor,
        sample: Tensor,
        limit: Callable[[Tensor], Tensor] | None = None,
        last: AnalyticPrediction | None = None,
    ) -> None:
        self.shape, self.device = sample.shape, sample.device
        self._formulas = [formula for formula in plan.formulas if formula is not None]
        lead = len(self._formulas)  # The output of a formula is x0.
        x0_from = torch.cat([torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand(lead, 2), x0_from])
        dtype = torch.promote_types(sample.dtype, torch.float32)
        width = max(plan.history_weights.shape[1], 1 + (0 if last is None else last.past))
        plan = replace(plan, history_weights=pad(plan.history_weights, (0, width - plan.history_weights.shape[1])))
        rounds, ring = dtype != sample.dtype, width - 1
        given = x0_from if limit is None else torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand_as(x0_from)
        maps = _history_map(plan, given)
        by_output = maps[:, 0].abs() < 1e-9 * maps[:, 1].abs()
        factor = torch.where(by_output, maps[:, 1], maps[:, 0])
        shares = plan.history_weights[:, :1] * maps
        shares[:, 0] += plan.state_weight
        columns = _columns(plan, factor, rounds)
        self._columns = columns.to(sample.device, dtype)
        self._buffer = torch.zeros(columns.shape[1], sample.numel(), device=sample.device, dtype=dtype)
        self._layout, self._last, self._steps = (ring, rounds, plan.stochastic), last, plan.steps
        self._view()
        self._shares, self._x0_from = shares.to(sample.device, dtype), x0_from.to(sample.device, dtype)
        self._gain, self._by_output = (maps[:, 1] / factor).to(sample.device, dtype), by_output.tolist()
        self._limit, self._noisy, self._factor = limit, (plan.noise_scale != 0).tolist(), factor.tolist()

    def _view(self) -> None:
        """Make the views of the buffer: the ring, the remainder and the noise; and place the last formula's arrays."""
        ring, rounds, noisy = self._layout
        rows = [row.view(self.shape) for row in self._buffer]
        self._read, self._ring = self._buffer.t(), rows[:ring]
        self._remainder, self._noise = rows[ring] if rounds else None, rows[-1] if noisy else None
        self._finish = None if self._last is None else self._last.bound(self._buffer.new_empty(self.shape))

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: the buffer once, without its views, which would become separate buffers."""
        return {name: value for name, value in vars(self).items() if name not in VIEWS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a pickled state, and make the views anew."""
        vars(self).update(state)
        self._view()

    def lead(self, sample: Tensor) -> Tensor:
        """Return the sample of the first network call: after the steps whose predictions are formulas."""
        for n, formula in enumerate(self._formulas):
            x = sample.to(self._read.dtype)
            sample = self._step(n, formula.bound(x)(x), sample, _silent)
        return sample

    def step(self, n: int, model_output: Tensor, sample: Tensor, draw: Callable[[Tensor], None]) -> Tensor:
        """Return the sample after the step of call ``n``; ``draw`` fills a tensor with noise, where it adds any."""
        return self._step(n + len(self._formulas), model_output, sample, draw)

    def _step(self, n: int, model_output: Tensor, sample: Tensor, draw: Callable[[Tensor], None]) -> Tensor:
        given = sample.dtype
        sample, model_output = sample.to(self._read.dtype), model_output.to(self._read.dtype)
        if self._limit is not None:
            p, q = self._x0_from[n]
            model_output = self._limit(p * sample + q * model_output)
        if self._noise is not None and self._noisy[n]:
            draw(self._noise)
        of_sample, of_output = self._shares[n]
        state = torch.empty(self.shape, dtype=self._read.dtype, device=self.device)
        torch.mv(self._read, self._columns[n], out=state.view(-1))  # With out= it is float32 under autocast too.
        state.addcmul_(sample, of_sample).addcmul_(model_output, of_output)
        if self._ring:
            self._keep(n, model_output, sample)
        if self._finish is not None and n + 1 == self._steps:
            assert self._last is not None
            state = self._finish(state, *reversed(self._kept(n + 1, self._last.past)))
        following = state.to(given)
        if self._remainder is not None:
            torch.sub(state, following, out=self._remainder)
        return following

    def _keep(self, n: int, model_output: Tensor, sample: Tensor) -> None:
        """Write the prediction of step ``n`` over the oldest one of the ring."""
        place = self._ring[n % len(self._ring)]
        if self._by_output[n]:
            place.copy_(model_output)
        else:
            torch.addcmul(sample, model_output, self._gain[n], out=place)

    def history(self, n: int) -> list[Tensor]:
        """Return the predictions that are kept after ``n`` calls, oldest first."""
        return self._kept(n + len(self._formulas), len(self._ring))

    def _kept(self, n: int, most: int) -> list[Tensor]:
        """Return the newest predictions after ``n`` steps, oldest first."""
        kept = range(max(0, n - most), n)
        return [self._ring[call % len(self._ring)] * self._factor[call] for call in kept]


def _silent(row: Tensor) -> None:
    """Draw no noise: a plan that leads with formulas is deterministic there."""
    row.zero_()


def _history_map(plan: Plan, x0_from: Tensor) -> Tensor:
    """Return (h, k) of each prediction with H = h·x + k·o, float64 [N, 2]; a noise prediction is (x − α·x0)/σ."""
    if plan.prediction == "x0":
        return x0_from
    alpha, sigma = plan.process.alpha(plan.prediction_times), plan.process.sigma(plan.prediction_times)
    noise = -alpha[:, None] * x0_from
    noise[:, 0] += 1.0
    return noise / sigma[:, None]


def _columns(plan: Plan, factor: Tensor, rounds: bool) -> Tensor:
    """Return the coefficients of each step over the ring, the remainder and the noise, float64 [N, rows]."""
    older = plan.history_weights[:, 1:]
    made_at = torch.arange(plan.steps)[:, None] - torch.arange(1, older.shape[1] + 1)
    places = made_at % max(1, older.shape[1])
    parts = [torch.zeros_like(older).scatter_(1, places, older * factor[made_at.clamp(min=0)])]
    parts += [plan.state_weight[:, None]] if rounds else []
    parts += [plan.noise_scale[:, None]] if plan.stochastic else []
    return torch.cat(parts, dim=1)

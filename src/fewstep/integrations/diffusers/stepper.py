"""A plan run from outside: the pipeline owns the loop, and hands in one network output at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fewstep.plan import Plan

__all__ = ["Layout", "Limit", "StepTensors", "Stepper", "advance"]

Limit = Callable[[Tensor, Tensor], Tensor]
"""(x0, quantile) → x0, limited: for networks in pixel space."""

SAMPLE, OUTPUT, OLDER = 0, 1, 2
"""Rows of the buffer: what the network saw, what it put out, and older predictions, newest first."""


class StepTensors(NamedTuple):
    """What one step reads and writes.

    Nothing here changes from step to step but values, so that a compiled ``advance`` is compiled once: views into the
    buffer are made inside of it.
    """

    buffer: Tensor
    """[rows, numel]: sample, output, older predictions, what rounding took (for half precision), noise."""
    coefficients: Tensor
    """[rows]."""
    gain: Tensor | None
    """The prediction is kept as sample + gain·output, 0-dimensional; None: as output."""
    x0_from: Tensor
    """(p, q) with x0 = p·sample + q·output, [2]."""
    quantile: Tensor
    """Of dynamic thresholding, 0-dimensional."""


class Layout(NamedTuple):
    """The same in every step of a run: the number of older predictions, and whether there is a remainder."""

    older: int
    rounds: bool


def advance(
    step: StepTensors, layout: Layout, model_output: Tensor, sample: Tensor, limit: Limit | None = None
) -> Tensor:
    """Return the next sample: two copies, one matrix-vector product, and the history moved on by one.

    With a ``limit`` the output is first turned into x0 and limited; the coefficients are then those of x0.
    """
    rows, shape = step.buffer.unbind(), sample.shape
    seen, output = rows[SAMPLE].view(shape), rows[OUTPUT].view(shape)
    seen.copy_(sample)
    output.copy_(model_output)
    if limit is not None:
        output.copy_(limit(step.x0_from[0] * seen + step.x0_from[1] * output, step.quantile))
    state = torch.mv(step.buffer.t(), step.coefficients).view(shape)
    for age in range(layout.older - 1, 0, -1):
        rows[OLDER + age].copy_(rows[OLDER + age - 1])
    if layout.older and step.gain is not None:
        torch.addcmul(rows[SAMPLE], rows[OUTPUT], step.gain, out=rows[OLDER])
    elif layout.older:
        rows[OLDER].copy_(rows[OUTPUT])
    following = state.to(sample.dtype)
    if layout.rounds:
        torch.sub(state, following, out=rows[OLDER + layout.older].view(shape))
    return following


class Stepper:
    r"""A plan with one row a call, turned into rows over what is at hand when a pipeline calls ``step``.

    A prediction is linear in the sample x and the network's output o, H = h·x + k·o, so that the newest enters a row
    by x and o themselves, with coefficients made in float64. Older ones are kept as x + (k/h)·o, and their factor
    h is part of their coefficients. The state of a step is the sample that is passed in, plus what the last
    rounding took: a pipeline may change it between steps.

    Args:
        plan: one row and one call an interval (see ``fewstep.executor.folded``).
        x0_from: (p, q) of each step, float64 [N, 2]: x0 = p·x + q·o.
        sample: the first sample: shape, device and dtype of the run; half precision is raised to float32 inside.
        limited: whether x0 itself is put in place of the output, because it is limited.
        quantile: of dynamic thresholding.
    """

    def __init__(
        self, plan: Plan, x0_from: Tensor, sample: Tensor, *, limited: bool = False, quantile: float = 1.0
    ) -> None:
        self.shape, self.device = sample.shape, sample.device
        dtype = torch.promote_types(sample.dtype, torch.float32)
        self.layout = Layout(older=plan.data.shape[-1] - 1, rounds=dtype != sample.dtype)
        given = torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand_as(x0_from) if limited else x0_from
        maps = _history_map(plan, given)
        by_output = bool((maps[:, 0].abs() < 1e-9 * maps[:, 1].abs()).all())
        factor = maps[:, 1] if by_output else maps[:, 0]
        columns = _columns(plan, maps, factor, self.layout.rounds)
        self._buffer = torch.zeros(columns.shape[1], sample.numel(), device=sample.device, dtype=dtype)
        self._columns, self._x0_from = columns.to(sample.device, dtype), x0_from.to(sample.device, dtype)
        self._gain = None if by_output else (maps[:, 1] / factor).to(sample.device, dtype)
        self._quantile = torch.tensor(quantile, device=sample.device, dtype=dtype)
        self._noisy, self._factor = (plan.noise != 0).tolist(), factor.tolist()

    def tensors(self, n: int, draw: Callable[[Tensor], None]) -> StepTensors:
        """Return what step ``n`` works on; its noise, if it adds any, is drawn into its row by ``draw``."""
        if self._noisy[n]:
            draw(self._buffer[-1].view(self.shape))
        gain = None if self._gain is None else self._gain[n]
        return StepTensors(self._buffer, self._columns[n], gain, self._x0_from[n], self._quantile)

    def history(self, n: int) -> list[Tensor]:
        """Return the predictions that are kept after ``n`` steps, oldest first."""
        ages = range(min(self.layout.older, n) - 1, -1, -1)
        return [(self._buffer[OLDER + age] * self._factor[n - 1 - age]).view(self.shape) for age in ages]


def _history_map(plan: Plan, x0_from: Tensor) -> Tensor:
    """Return (h, k) of each step with history = h·x + k·o, float64 [N, 2]."""
    if plan.prediction == "x0":
        return x0_from
    alpha, sigma = plan.process.alpha(plan.call_times), plan.process.sigma(plan.call_times)
    noise = -alpha[:, None] * x0_from
    noise[:, 0] += 1.0
    return noise / sigma[:, None]


def _columns(plan: Plan, maps: Tensor, factor: Tensor, rounds: bool) -> Tensor:
    """Return the coefficients of each step over the buffer's rows, float64 [N, rows]."""
    newest, older = plan.data[:, :1], plan.data[:, 1:]
    made_at = torch.arange(plan.steps)[:, None] - torch.arange(1, older.shape[1] + 1)
    parts = [newest * maps, older * factor[made_at.clamp(min=0)]]
    parts[0][:, SAMPLE] += plan.state
    parts += [plan.state[:, None]] if rounds else []
    parts += [plan.noise[:, None]] if plan.stochastic else []
    return torch.cat(parts, dim=1)

"""A plan run from outside: the pipeline owns the loop, and hands in one network output at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fewstep.plan import Plan

__all__ = ["Stepper", "Views", "advance"]


class Views(NamedTuple):
    """One step as views of the stepper's buffer: all that ``advance`` touches."""

    sample: Tensor
    """Where the sample that the network saw goes."""
    output: Tensor
    """Where the network's output goes."""
    remainder: Tensor | None
    """What the last step's rounding to half precision took from the state."""
    history: Tensor | None
    """Where this step's prediction goes, for later steps."""
    gain: Tensor | None
    """history = sample + gain·output; None: history = output."""
    read: Tensor
    """[numel, rows]."""
    coefficients: Tensor
    """[rows]."""
    x0_from: Tensor
    """(p, q) with x0 = p·sample + q·output, [2]."""


def advance(
    views: Views, model_output: Tensor, sample: Tensor, limit: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Return the next sample: two copies, one matrix-vector product, and one addition for the history.

    With a ``limit`` the output is first turned into x0 and limited; the coefficients are then those of x0.
    """
    views.sample.copy_(sample)
    views.output.copy_(model_output)
    if limit is not None:
        p, q = views.x0_from
        views.output.copy_(limit(p * views.sample + q * views.output))
    state = torch.mv(views.read, views.coefficients).view(sample.shape)
    if views.history is not None:
        if views.gain is None:
            views.history.copy_(views.output)
        else:
            torch.addcmul(views.sample, views.output, views.gain, out=views.history)
    if views.remainder is None:
        return state
    following = state.to(sample.dtype)
    torch.sub(state, following, out=views.remainder)
    return following


class Stepper:
    r"""A plan with one row a call, turned into rows over what is at hand when a pipeline calls ``step``.

    Rows of the buffer: the sample x, the network's output o, what rounding took (for half precision), a ring of
    older predictions, and noise. A prediction is linear in x and o, H = h·x + k·o, so that the newest enters a row
    by x and o themselves, with coefficients made in float64; older ones are kept as x + (k/h)·o, and their
    factor h is part of their coefficients too. The state of a step is the sample that is passed in, plus the
    remainder: a pipeline may change it between steps.

    Args:
        plan: one row and one call an interval (see ``fewstep.executor.folded``).
        x0_from: (p, q) of each step, float64 [N, 2]: x0 = p·x + q·o.
        sample: the first sample: shape, device and dtype of the run; half precision is raised to float32 inside.
        limited: whether x0 itself is put in place of the output, because it is limited.
    """

    def __init__(self, plan: Plan, x0_from: Tensor, sample: Tensor, *, limited: bool = False) -> None:
        self.shape, self.device, self.sample_dtype = sample.shape, sample.device, sample.dtype
        dtype = torch.promote_types(sample.dtype, torch.float32)
        rounds = dtype != sample.dtype
        ring = plan.data.shape[-1] - 1
        rows = 2 + int(rounds) + ring + int(plan.stochastic)
        given = torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand_as(x0_from) if limited else x0_from
        maps = _history_map(plan, given)
        self._x0_from = x0_from.to(sample.device, dtype)
        by_output = bool((maps[:, 0].abs() < 1e-9 * maps[:, 1].abs()).all())
        factor = maps[:, 1] if by_output else maps[:, 0]
        self._buffer = torch.zeros(rows, sample.numel(), dtype=dtype, device=sample.device)
        self._views = [row.view(sample.shape) for row in self._buffer]
        self._columns = _columns(plan, maps, factor, rows, rounds).to(sample.device, dtype)
        self._gain = None if by_output else (maps[:, 1] / factor).to(sample.device, dtype)
        self._first = 2 + int(rounds)
        self._ring, self._rounds = ring, rounds
        self._factor = factor.tolist()
        self._noisy = (plan.noise != 0).tolist()

    def views(self, n: int, draw: Callable[[Tensor], None]) -> Views:
        """Return the views of step ``n``; its noise, if it adds any, is drawn into its row by ``draw``."""
        if self._noisy[n]:
            draw(self._views[-1])
        return Views(
            sample=self._views[0],
            output=self._views[1],
            remainder=self._views[2] if self._rounds else None,
            history=self._views[self._first + n % self._ring] if self._ring else None,
            gain=None if self._gain is None or not self._ring else self._gain[n],
            read=self._buffer.t(),
            coefficients=self._columns[n],
            x0_from=self._x0_from[n],
        )

    def history(self, n: int) -> list[Tensor]:
        """Return the predictions that are kept after ``n`` steps, oldest first."""
        made = range(max(0, n - self._ring), n)
        return [self._views[self._first + i % self._ring] * self._factor[i] for i in made]


def _history_map(plan: Plan, x0_from: Tensor) -> Tensor:
    """Return (h, k) of each step with history = h·x + k·o, float64 [N, 2]."""
    if plan.prediction == "x0":
        return x0_from
    alpha, sigma = plan.process.alpha(plan.call_times), plan.process.sigma(plan.call_times)
    noise = -alpha[:, None] * x0_from
    noise[:, 0] += 1.0
    return noise / sigma[:, None]


def _columns(plan: Plan, maps: Tensor, factor: Tensor, rows: int, rounds: bool) -> Tensor:
    """Return the coefficients of each step over the buffer's rows, float64 [N, rows]."""
    steps, ring, first = plan.steps, plan.data.shape[-1] - 1, 2 + int(rounds)
    columns = torch.zeros(steps, rows, dtype=torch.float64)
    columns[:, :2] = plan.data[:, :1] * maps
    columns[:, 0] += plan.state
    if rounds:
        columns[:, 2] = plan.state
    if ring:
        calls = torch.arange(steps)[:, None] - torch.arange(1, ring + 1)
        weights = plan.data[:, 1:] * factor[calls.clamp(min=0)]
        columns.scatter_(1, first + calls % ring, weights)
    if plan.stochastic:
        columns[:, -1] = plan.noise
    return columns

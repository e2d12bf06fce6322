"""A plan's rows as views of one buffer, and the loop over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.denoiser import checked_prediction
from fewstep.errors import NonFiniteStateError
from fewstep.plan import Plan
from fewstep.processes.base import on_host

__all__ = ["Callback", "Draw", "StateCorrection", "Tape"]

Callback = Callable[[int, Tensor, Tensor, Tensor], Any]
"""callback(step, t, x_t, x0) after each interval: its number from 0, its end, the state there, and the latest D. Where
the network is called once an interval, before its correction, the state is that of the call, the predictor's, and the
correction is part of the next one; in other plans (Heun, PECE, a correction at the end) it is the corrected state."""


StateCorrection = Callable[[Tensor, Tensor, int], Tensor]
"""correct_x_t(x_t, t, n) → x_t: the state in place of that at grid point n, whose time is t."""


Draw = Callable[[Tensor, int], None]
"""draw(out, n): fill a tensor with the noise of interval n."""


@dataclass(frozen=True)
class Move:
    """One row of the plan as views of the buffer: everything that the loop needs, ready."""

    step: int
    t: Tensor | None
    """The time of the call before this row, or None if there is none."""
    formula: Callable[..., Tensor] | None
    """What predicts in place of a call, if anything does."""
    past: list[Tensor]
    """The earlier predictions that the formula takes, newest first."""
    point: Tensor
    """The state that the network is called on, shaped like x_T."""
    slot: Tensor
    """Where its prediction goes."""
    from_data: tuple[float, float] | None
    """(α, 1/σ) if the history holds noise predictions."""
    noise: Tensor | None
    """The noise to be drawn before this row, or None."""
    read: Tensor
    coefficients: Tensor
    write: Tensor
    state: Tensor
    ends: Tensor | None
    """The interval's end, if this row ends it."""
    probe: Tensor


class Tape:
    """The buffer and the moves. Rows of the buffer: state, history ring, noise, the other state.

    A row of the plan reads the base state and what lies between the two states, and writes the other one:
    what is read and what is written are each one contiguous block.
    """

    @on_host
    def __init__(self, plan: Plan, x_T: Tensor, cond: Any) -> None:
        dtype = torch.promote_types(x_T.dtype, torch.float32)
        ring = plan.history_weights.shape[-1]
        between = ring + int(plan.stochastic)
        buffer = self._buffer = torch.zeros(between + 2, x_T.numel(), dtype=dtype, device=x_T.device)
        buffer[0] = x_T.reshape(-1)
        columns = _columns(plan, ring, between).to(device=x_T.device, dtype=dtype)
        coefficients = columns.unbind(), columns.roll(-1, dims=1).unbind()
        reads = buffer[:-1].t(), buffer[1:].t()
        calls, (self._first, *ends) = (times.to(x_T.device).unbind() for times in (plan.prediction_times, plan.times))
        from_data = _from_data(plan)
        self.probes = torch.zeros(plan.steps, dtype=dtype, device=x_T.device)
        probes = self.probes.unbind()
        self.moves: list[Move] = []
        flat = buffer.unbind()
        views = [row.view(x_T.shape) for row in flat]
        base, current, call, drawn = 0, 0, -1, -1
        steps, predicts, noises = plan.interval.tolist(), plan.predicts.tolist(), plan.noise_scale.tolist()
        formulas = [None if formula is None else formula.bound(x_T, cond) for formula in plan.formulas]
        taken = [0 if formula is None else formula.past for formula in plan.formulas]
        for r, step in enumerate(steps):
            if r and step != steps[r - 1]:
                base = current
            call += int(predicts[r])
            draws = noises[r] != 0 and drawn != step
            drawn = step if draws else drawn
            other = int(base != 0)
            target = 0 if other else between + 1
            last = r + 1 == len(steps) or steps[r + 1] != step
            self.moves.append(
                Move(
                    step=step,
                    t=calls[call] if predicts[r] and formulas[call] is None else None,
                    formula=formulas[call] if predicts[r] else None,
                    past=[views[1 + (call - 1 - k) % ring] for k in range(taken[call] if predicts[r] else 0)],
                    point=views[current],
                    slot=views[1 + call % ring],
                    from_data=from_data[call],
                    noise=views[between] if draws else None,
                    read=reads[other],
                    coefficients=coefficients[other][r],
                    write=flat[target],
                    state=views[target],
                    ends=ends[step] if last else None,
                    probe=probes[step],
                )
            )
            current = target

    def start(self, x_T: Tensor) -> None:
        """Put the first state in its place, and nothing in the others."""
        self._buffer.zero_()
        self._buffer[0].copy_(x_T.reshape(-1))

    def run(
        self,
        denoiser: Callable[..., Tensor],
        arguments: tuple[Any, ...],
        draw: Draw | None,
        callback: Callback | None = None,
        correct_x_t: StateCorrection | None = None,
    ) -> None:
        """Run the rows, once, from the first state: nothing here waits for the device."""
        prediction = self.moves[0].point
        for move in self.moves:
            if move.t is not None:
                prediction = denoiser(move.point.clone(), move.t, *arguments)  # It may write into what it is given.
                _remember(move, checked_prediction(prediction, move.point))
            elif move.formula is not None:
                prediction = move.formula(move.point, *move.past)
                _remember(move, prediction)
            if correct_x_t is not None and move is self.moves[0]:
                _correct(correct_x_t, move.point, self._first, 0)
            if move.noise is not None and draw is not None:
                draw(move.noise, move.step)
            torch.mv(move.read, move.coefficients, out=move.write)
            if move.ends is not None:
                if correct_x_t is not None:
                    _correct(correct_x_t, move.state, move.ends, move.step + 1)
                torch.sum(move.write, 0, out=move.probe)
                if callback is not None:
                    callback(move.step, move.ends, move.state, prediction)

    @property
    def state(self) -> Tensor:
        """The state after the last row, in the buffer."""
        return self.moves[-1].state

    def check_finite(self, plan: Plan) -> None:
        """Raise for the first interval after which the state was not finite; the only wait for the device."""
        broken = torch.nonzero(~torch.isfinite(self.probes)).flatten().tolist()
        if broken:
            n = broken[0]
            hint = ""
            if n == 0 and float(plan.process.alpha(plan.times[0])) == 0.0:
                hint = " At α = 0 an epsilon or edm network says nothing of the data: start the grid later."
            raise NonFiniteStateError(
                f"the state is not finite after step {n} of {plan.steps} (t = {float(plan.times[n]):.6g} → "
                f"{float(plan.times[n + 1]):.6g}): the network returned a value that is not finite, or the state "
                "overflowed. Try a network in float32 or bfloat16, a smaller guidance scale, or a lower order." + hint
            )


def _from_data(plan: Plan) -> list[tuple[float, float] | None]:
    """Return (α, 1/σ) at each call, where the history holds noise predictions."""
    if plan.prediction != "epsilon":
        return [None] * len(plan.formulas)
    alpha, sigma = plan.process.alpha(plan.prediction_times), plan.process.sigma(plan.prediction_times)
    return list(zip(alpha.tolist(), sigma.reciprocal().tolist(), strict=True))


def _columns(plan: Plan, ring: int, between: int) -> Tensor:
    """Return the coefficients of each row in the order (base, history ring, noise), [R, 1 + between]."""
    columns = torch.zeros(plan.interval.numel(), 1 + between, dtype=torch.float64)
    columns[:, 0] = plan.state_weight
    newest = plan.predicts.cumsum(0)[:, None] - 1 - torch.arange(ring)
    columns.scatter_(1, 1 + newest % ring, plan.history_weights)
    if between > ring:
        columns[:, -1] = plan.noise_scale
    return columns


def _correct(correct_x_t: StateCorrection, state: Tensor, t: Tensor, n: int) -> None:
    """Put what ``correct_x_t`` makes of a state in its place."""
    state.copy_(checked_prediction(correct_x_t(state.clone(), t, n), state, "correct_x_t"))


def _remember(move: Move, prediction: Tensor) -> None:
    """Put a data prediction into the history, as noise where the plan asks for it.

    One rounding an operation: a fused a − αb is rounded otherwise at the ends of a vector register's reach, and
    a sample would depend on its place in the batch.
    """
    if move.from_data is None:
        move.slot.copy_(prediction)
        return
    alpha, per_sigma = move.from_data
    torch.mul(prediction.to(move.slot.dtype), alpha, out=move.slot)
    torch.sub(move.point, move.slot, out=move.slot).mul_(per_sigma)

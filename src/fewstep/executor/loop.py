"""The only loop: it runs any plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.checks import check_callback, shown
from fewstep.denoiser import DataPredictor, checked_prediction, over_tensors
from fewstep.errors import InputError, NonFiniteStateError
from fewstep.executor.fold import foldable, folded
from fewstep.executor.noise import STEPS, Generators, NoiseSampler, NoiseSource
from fewstep.plan import Plan
from fewstep.processes.base import on_host
from fewstep.recipe import Recipe

__all__ = ["Callback", "StateCorrection", "execute"]

Callback = Callable[[int, Tensor, Tensor, Tensor], Any]
"""callback(step, t, x_t, x0) after each interval: its number from 0, its end, the state there, and the latest D. Where
the network is called once an interval, before its correction, the state is that of the call, the predictor's, and the
correction is part of the next one; in other plans (Heun, PECE, a correction at the end) it is the corrected state."""


StateCorrection = Callable[[Tensor, Tensor, int], Tensor]
"""correct_x_t(x_t, t, n) → x_t: the state in place of that at grid point n, whose time is t."""


@torch.no_grad()
def execute(
    plan: Plan | Recipe,
    denoiser: DataPredictor | Callable[..., Tensor],
    x_T: Tensor,
    *,
    seeds: Sequence[int] | Tensor | None = None,
    generator: Generators | None = None,
    noise_sampler: NoiseSampler | None = None,
    cond: Any = None,
    callback: Callback | None = None,
    correct_x_t: StateCorrection | None = None,
) -> Tensor:
    r"""Run a plan from ``x_T`` and return the state at its last time.

    The state, the history of predictions and the noise are rows of one buffer, so that each row of the plan
    is one matrix-vector product; predictor and corrector that share a call are first folded into one row.
    Coefficients are placed before the first call; inside the loop there is no
    arithmetic on coefficients, no allocation but the network's and a copy of its input, and no wait for the
    device.

    Args:
        plan: the table, or a recipe that holds one; not a batch of tables.
        denoiser: an ``fs.Denoiser``, or any callable (x_t, t) → x0 with t a 0-dimensional float64 tensor on
            ``x_T``'s device; it is called with a third argument only if ``cond`` is given.
        x_T: [batch, …], the state at the plan's first time. Half precision is raised to float32.
        seeds: one for each sample: each sample then has its noise in any batch. A plan that begins below
            the process's first noise level draws other noise from them, so that a second stage does not repeat that of
            the first.
        generator: instead of seeds, one generator for the batch or a list of one for each sample.
        noise_sampler: instead of seeds, a function (sigma, sigma_next) → unit noise shaped like ``x_T``, asked once an
            interval with σ at its two ends: for noise in a subspace, such as with its mean taken out.
        cond: what the denoiser takes as a condition; class numbers are checked.
        callback: called as callback(step, t, x_t, x0); the tensors are views, valid until it returns.
        correct_x_t: called as correct_x_t(x_t, t, n) on the state at each grid point, corrector included, and returns
            the state that goes on, for projections and constraints. The first state is changed after the network was
            called on it, and where a step has a corrector, its evaluation is that of the predictor's state: as
            SA-Solver's public code does it. Predictor and corrector are then not folded.

    Returns:
        The final state, shaped like ``x_T``, in float32 or ``x_T``'s own wider type.

    Raises:
        InputError: if shapes do not fit, the plan adds noise and not one source of it is given, or a
            condition is out of range; or if the plan is a batch of plans.
        NonFiniteStateError: if a state stops being finite; it names the first such step.
    """
    plan = plan.plan if isinstance(plan, Recipe) else plan
    _check(plan, denoiser, x_T)
    check_callback("callback", callback)
    check_callback("correct_x_t", correct_x_t)
    if isinstance(correct_x_t, type):
        raise InputError(f"correct_x_t is {shown(correct_x_t)}: give a function (x_t, t, n) -> x_t.")
    if isinstance(denoiser, DataPredictor):
        cond = denoiser.check_cond(cond, x_T.shape[0])
    cond = over_tensors(cond, lambda tensor: tensor.to(x_T.device))
    arguments = () if cond is None else (cond,)
    tape = _Tape(folded(plan) if foldable(plan) and correct_x_t is None else plan, x_T, cond)
    draw = _noise(plan, x_T, seeds, generator, noise_sampler) if plan.stochastic else None
    prediction = x_T
    for move in tape.moves:
        if move.t is not None:
            prediction = denoiser(move.point.clone(), move.t, *arguments)  # It may write into what it is given.
            _remember(move, checked_prediction(prediction, move.point))
        elif move.formula is not None:
            prediction = move.formula(move.point)
            _remember(move, prediction)
        if correct_x_t is not None and move is tape.moves[0]:
            _correct(correct_x_t, move.point, plan.times[0].to(x_T.device), 0)
        if move.noise is not None and draw is not None:
            draw(move.noise, move.step)
        torch.mv(move.read, move.coefficients, out=move.write)
        if move.ends is not None:
            if correct_x_t is not None:
                _correct(correct_x_t, move.state, move.ends, move.step + 1)
            torch.sum(move.write, 0, out=move.probe)
            if callback is not None:
                callback(move.step, move.ends, move.state, prediction)
    tape.check_finite(plan)
    return tape.moves[-1].state.clone()


def _correct(correct_x_t: StateCorrection, state: Tensor, t: Tensor, n: int) -> None:
    """Put what ``correct_x_t`` makes of a state in its place."""
    state.copy_(checked_prediction(correct_x_t(state.clone(), t, n), state, "correct_x_t"))


def _noise(
    plan: Plan,
    x_T: Tensor,
    seeds: Sequence[int] | Tensor | None,
    generator: Generators | None,
    noise_sampler: NoiseSampler | None,
) -> Callable[[Tensor, int], None]:
    """Return what fills a tensor with the noise of an interval."""
    if noise_sampler is None:
        source = NoiseSource(
            x_T.shape[0], x_T.device, seeds=seeds, generator=generator, stream=STEPS, level=_level(plan)
        )
        return lambda out, interval: source.fill(out)
    if seeds is not None or generator is not None:
        raise InputError("noise_sampler is given together with seeds or a generator: noise comes from one of them.")
    if not callable(noise_sampler):
        raise InputError(f"noise_sampler is {noise_sampler!r}: give a function (sigma, sigma_next) -> noise.")
    sigmas = plan.process.sigma(plan.times).to(x_T.device).unbind()

    def fill(out: Tensor, interval: int) -> None:
        noise = noise_sampler(sigmas[interval], sigmas[interval + 1])
        if noise.shape != out.shape:
            raise InputError(f"noise_sampler returned shape {tuple(noise.shape)} for a state {tuple(out.shape)}.")
        out.copy_(noise)

    return fill


@on_host
def _level(plan: Plan) -> float | None:
    """Return the time that the plan begins at, if it begins below the process's first level."""
    first, highest = plan.process.half_logsnr(plan.times[0]), plan.process.half_logsnr(plan.process.t_max)
    return float(plan.times[0]) if float(first) > float(highest) + 1e-6 else None


@dataclass(frozen=True)
class _Move:
    """One row of the plan as views of the buffer: everything that the loop needs, ready."""

    step: int
    t: Tensor | None
    """The time of the call before this row, or None if there is none."""
    formula: Callable[[Tensor], Tensor] | None
    """What predicts in place of a call, if anything does."""
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


class _Tape:
    """The buffer and the moves. Rows of the buffer: state, history ring, noise, the other state.

    A row of the plan reads the base state and what lies between the two states, and writes the other one:
    what is read and what is written are each one contiguous block.
    """

    @on_host
    def __init__(self, plan: Plan, x_T: Tensor, cond: Any) -> None:
        dtype = torch.promote_types(x_T.dtype, torch.float32)
        ring = plan.history_weights.shape[-1]
        between = ring + int(plan.stochastic)
        buffer = torch.zeros(between + 2, x_T.numel(), dtype=dtype, device=x_T.device)
        buffer[0] = x_T.reshape(-1)
        columns = _columns(plan, ring, between).to(device=x_T.device, dtype=dtype)
        coefficients = columns.unbind(), columns.roll(-1, dims=1).unbind()
        reads = buffer[:-1].t(), buffer[1:].t()
        calls, ends = plan.prediction_times.to(x_T.device).unbind(), plan.times.to(x_T.device).unbind()
        from_data = _from_data(plan)
        self.probes = torch.zeros(plan.steps, dtype=dtype, device=x_T.device)
        probes = self.probes.unbind()
        self.moves: list[_Move] = []
        flat = buffer.unbind()
        views = [row.view(x_T.shape) for row in flat]
        base, current, call, drawn = 0, 0, -1, -1
        steps, predicts, noises = plan.interval.tolist(), plan.predicts.tolist(), plan.noise_scale.tolist()
        formulas = [None if formula is None else formula.bound(x_T, cond) for formula in plan.formulas]
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
                _Move(
                    step=step,
                    t=calls[call] if predicts[r] and formulas[call] is None else None,
                    formula=formulas[call] if predicts[r] else None,
                    point=views[current],
                    slot=views[1 + call % ring],
                    from_data=from_data[call],
                    noise=views[between] if draws else None,
                    read=reads[other],
                    coefficients=coefficients[other][r],
                    write=flat[target],
                    state=views[target],
                    ends=ends[step + 1] if last else None,
                    probe=probes[step],
                )
            )
            current = target

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


def _remember(move: _Move, prediction: Tensor) -> None:
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


def check_denoiser(denoiser: object) -> None:
    """Refuse what is no denoiser.

    Raises:
        InputError: if it cannot be called.
    """
    if not callable(denoiser) or isinstance(denoiser, type):
        raise InputError(f"denoiser is {shown(denoiser)}: give an fs.Denoiser or a callable (x_t, t) -> x0.")


def _check(plan: Plan, denoiser: object, x_T: Tensor) -> None:
    if not isinstance(plan, Plan):
        raise InputError(f"plan is {type(plan).__name__}: give a Plan, as solver.plan(grid) returns.")
    if plan.times.ndim != 1:
        raise InputError(f"plan is a batch of {tuple(plan.times.shape[:-1])} plans: run one, made on a single grid.")
    check_denoiser(denoiser)
    if not isinstance(x_T, Tensor) or not x_T.is_floating_point() or x_T.ndim < 1 or x_T.numel() == 0:
        shown = f"{tuple(x_T.shape)} {x_T.dtype}" if isinstance(x_T, Tensor) else type(x_T).__name__
        raise InputError(f"x_T is {shown}: give a floating-point tensor [batch, …] at the first time of the grid.")
    shape = getattr(denoiser, "shape", None) if isinstance(denoiser, DataPredictor) else None
    if shape is not None and tuple(x_T.shape[1:]) != shape:
        raise InputError(f"x_T has shape {tuple(x_T.shape)}: the model takes [batch, {', '.join(map(str, shape))}].")
    if getattr(denoiser, "integer_times", False) and not torch.allclose(
        plan.times, plan.grid.on_training_steps().times, rtol=0.0, atol=1e-9
    ):
        raise InputError(
            "the network looks its time up, and the plan calls it between training steps: plan on "
            "grid.on_training_steps(), as fs.sample does."
        )
    of_denoiser = getattr(denoiser, "process", None)
    if of_denoiser is not None and of_denoiser != plan.process:
        raise InputError(
            f"the plan was made for {plan.process!r}, the denoiser is of {of_denoiser!r}: "
            "make the grid with the denoiser's process."
        )

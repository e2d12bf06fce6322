"""``execute``: it runs any plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.checks import check_callback, computable, described, flag, shown
from fewstep.denoiser import DataPredictor, over_tensors
from fewstep.errors import InputError
from fewstep.executor.fold import foldable, folded
from fewstep.executor.graph import captured
from fewstep.executor.noise import STEPS, Generators, NoiseSampler, NoiseSource
from fewstep.executor.tape import Callback, Draw, StateCorrection, Tape
from fewstep.plan import Plan
from fewstep.processes.base import on_host
from fewstep.recipe import Recipe

__all__ = ["execute", "step_noise"]


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
    graph: bool = False,
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
        graph: run all calls and rows as one CUDA graph, which spares a small network the time of its launches. The
            graph is captured at the first call for a plan, a denoiser, a shape and a kind of condition, and replayed by
            later ones with the same denoiser object. What cannot be captured runs without a graph, with a warning
            that says why.

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
    rows = folded(plan) if foldable(plan) and correct_x_t is None else plan
    draw = step_noise(plan, x_T, seeds, generator, noise_sampler) if plan.stochastic else None
    if flag("graph", graph):
        loop = captured(rows, denoiser, x_T, cond, interrupted=callback is not None or correct_x_t is not None)
        if loop is not None:
            return loop(plan, x_T, cond, draw)
    tape = Tape(rows, x_T, cond)
    tape.run(denoiser, arguments, draw, callback, correct_x_t)
    tape.check_finite(plan)
    return tape.state.clone()


def step_noise(
    plan: Plan,
    x_T: Tensor,
    seeds: Sequence[int] | Tensor | None = None,
    generator: Generators | None = None,
    noise_sampler: NoiseSampler | None = None,
) -> Draw:
    """Return what fills a tensor with the noise of an interval; it is asked in turn, where the plan adds noise.

    Raises:
        InputError: if not one source of noise is given, or it does not fit.
    """
    if seeds is None and generator is None and noise_sampler is None:
        raise InputError(
            "the plan adds noise: give either seeds (one for each sample), a generator or a noise_sampler."
        )
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
    if not computable(x_T) or x_T.numel() == 0:
        what = described(x_T) if isinstance(x_T, Tensor) else type(x_T).__name__
        raise InputError(f"x_T is {what}: give a floating-point tensor [batch, …] at the first time of the grid.")
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

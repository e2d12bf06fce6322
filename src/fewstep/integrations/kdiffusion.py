"""k-diffusion's conventions: a wrapper D(x, σ), falling sigmas, and our plans in place of its samplers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fewstep import checks, grids, solvers
from fewstep.errors import InputError, MissingPackageError
from fewstep.executor import Generators, NoiseSampler, execute
from fewstep.inversion import NoisePredictor, TowardsNoise, inversion_plan
from fewstep.plan import Plan
from fewstep.processes import EDM, Process, RectifiedFlow
from fewstep.processes.base import on_host
from fewstep.solvers import Solver
from fewstep.time_grid import TimeGrid

__all__ = ["get_sigmas", "in_sigma", "planned", "run", "sample", "sigmas_of"]

Model = Callable[..., Tensor]
"""model(x, sigma [batch], **extra_args) → D, with x = x_0 + σ·ε."""


def sample(
    model: Model,
    x: Tensor,
    sigmas: Tensor | Sequence[float],
    *,
    solver: str | Solver | Plan = "unipc",
    extra_args: Mapping[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], Any] | None = None,
    disable: bool | None = None,
    noise_sampler: NoiseSampler | None = None,
    seeds: Sequence[int] | Tensor | None = None,
    generator: Generators | None = None,
) -> Tensor:
    r"""Return the samples at the last sigma: k-diffusion's ``sample_…`` with one of our solvers.

    ``model`` is any of k-diffusion's wrappers (``DiscreteEpsDDPMDenoiser``, ``CompVisDenoiser``, ``VDenoiser``,
    ``Denoiser``): called as ``model(x, sigma, **extra_args)`` with sigma [batch], it returns the denoised x. The
    state is x_0 + σ·ε, the process EDM's.

    Equals, on sigmas that end in 0 and without churn: "euler" is ``sample_euler``, "heun" ``sample_heun``, "dpmpp"
    ``sample_dpmpp_2m``, ``DDIM(eta)`` ``sample_euler_ancestral``, and ``SASolver(2, 0, tau=√eta, orders="diffusers")``
    ``sample_dpmpp_2m_sde`` with ``solver_type="heun"``.

    Args:
        model: the wrapper.
        x: the state at ``sigmas[0]``, usually noise times it; half precision is raised to float32.
        sigmas: falling, from noise to data; usually the last is 0, else the result is the state at the last. With one
            sigma or none, ``x`` is returned. Rising ones run the ODE from data towards noise.
        solver: a solver, its name with settings ("sa:tau=0.5"), or a plan, such as a recipe's, whose sigmas
            (``sigmas_of``) these must be.
        extra_args: keywords for every call of the model.
        callback: called at the start of each step with the dictionary of x, i, sigma, sigma_hat and denoised.
        disable: whether to show no progress bar; None: none where there is no terminal.
        noise_sampler: noise_sampler(sigma, sigma_next) → unit noise shaped like x, such as k-diffusion's
            ``BrownianTreeNoiseSampler``, or noise with its mean taken out.
        seeds: instead, one for each sample; see ``fs.execute``.
        generator: instead, one for the batch or a list of one for each sample.

    Raises:
        InputError: if the sigmas neither fall nor rise, a stochastic solver is given no noise, or a plan is of other
            sigmas or a process that has no such coordinates.
        NonFiniteStateError: if a state stops being finite.
    """
    levels = _levels(sigmas)
    checks.function("model", model, "give one of k-diffusion's wrappers, called as model(x, sigma)")
    checks.tensor("x", x, "give the state at the first sigma as a tensor [n, …]")
    if levels.numel() < 2:
        return x
    if isinstance(solver, Plan):
        plan = _checked(solver, levels)
    else:
        plan = planned(solvers.named(solver) if isinstance(solver, str) else solver, _levels_of(model), levels)
    return run(
        plan,
        model,
        x,
        extra_args=extra_args,
        callback=callback,
        disable=disable,
        noise_sampler=noise_sampler,
        seeds=seeds,
        generator=generator,
    )


def get_sigmas(
    n: int,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    *,
    grid: str = "optimized",
    solver: str | Solver = "unipc",
    process: Process | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return a grid of ours as sigmas [n + 1], falling from ``sigma_max`` to ``sigma_min`` and then to 0.

    ``get_sigmas(10, model.sigma_min, model.sigma_max)`` is the grid optimised for ``solver``;
    ``grid="karras"`` is ``get_sigmas_karras``, "uniform_logsnr" ``get_sigmas_exponential``.

    Args:
        n: the number of steps.
        sigma_min: the model's lowest noise level above 0.
        sigma_max: its highest.
        grid: a grid's name with settings, as on the command line, or a grid's JSON file.
        solver: for "optimized", the solver or its name.
        process: instead of the two levels, the process that the model was trained on: "uniform_time" is then even in
            its time. The sigmas are σ/α, or t for a flow.
        device: of the result.
        dtype: of the result.

    Raises:
        InputError: for a name or setting that is not known, or a process without an end at 0.
    """
    place, kind = checks.device("device", device), checks.floating("dtype", dtype)
    if process is None:
        process = EDM(
            checks.real("sigma_min", sigma_min, 0.0, above=True), checks.real("sigma_max", sigma_max, 0.0, above=True)
        )
    chosen = solvers.named(solver) if isinstance(solver, str) else solver
    made = grids.named(grid, process, n, "zero", solver=chosen)
    return sigmas_of(made).to(device=place, dtype=kind)


def sigmas_of(grid: TimeGrid | Plan) -> Tensor:
    """Return the sigmas of a grid's or plan's times, float64 [N + 1]: σ/α, but t for a flow."""
    if not isinstance(grid, (TimeGrid, Plan)):
        raise InputError(f"grid is {checks.shown(grid)}: give an fs.TimeGrid or a Plan.")
    process, times = grid.process, grid.times
    if isinstance(process, RectifiedFlow):
        return times.clone()
    return (-process.half_logsnr(times)).exp()


@on_host
def in_sigma(plan: Plan) -> Plan:
    r"""Return the plan for the state x_0 + (σ/α)·ε, the coordinates of k-diffusion and of most of ComfyUI's models.

    With x̄ = x/α the row x_t = a·x_s + Σ b_j·D_j + c·ξ is x̄_t = (a·α_s/α_t)·x̄_s + Σ (b_j/α_t)·D_j + (c/α_t)·ξ, on the
    process of EDM with times σ/α. Data and noise predictions are the same in both. Plans of EDM's process and of flows,
    whose state is the models' own, are returned as they are.

    Raises:
        InputError: if the plan starts at α = 0, where x/α is not defined.
    """
    process = checks.instance(Plan, "plan", plan, "give a Plan, as solver.plan(grid) returns").process
    if isinstance(process, (EDM, RectifiedFlow)):
        return plan
    if bool((process.alpha(plan.times) == 0).any()):
        raise InputError("the plan starts at α = 0, where x/α is not defined: start its grid a little later.")
    sigmas = sigmas_of(plan)
    alpha = process.alpha(plan.times)
    source, target = alpha[plan.interval], alpha[plan.interval + 1]
    low = float(sigmas[sigmas > 0].min())
    levels = EDM(0.5 * low if low == float(sigmas[0]) else low, float(sigmas[0]))
    return Plan(
        grid=TimeGrid(levels, sigmas),
        interval=plan.interval,
        state_weight=plan.state_weight * source / target,
        history_weights=plan.history_weights / target[:, None],
        noise_scale=plan.noise_scale / target,
        evaluate=plan.evaluate,
        prediction=plan.prediction,
        solver=plan.solver,
        fitted=plan.fitted,
        analytic=tuple(
            None if formula is None else formula.scaled(float(alpha[point]))
            for formula, point in zip(plan.analytic, plan.row_points.tolist(), strict=False)
        ),
    )


def planned(solver: Solver, process: Process, sigmas: Tensor) -> Plan:
    """Return the solver's plan on the sigmas, which are times of ``process``; towards noise where they rise."""
    checks.instance(Solver, "solver", solver, "give one such as fs.UniPC()")
    checks.instance(Process, "process", process, "give one such as fs.processes.EDM()")
    levels = _levels(sigmas).detach().to("cpu", torch.float64)
    if len(levels) > 1 and float(levels[0]) < float(levels[-1]):
        return inversion_plan(solver, TimeGrid(process, levels.flip(0)))
    return solver.plan(TimeGrid(process, levels))


def run(
    plan: Plan,
    model: Model,
    x: Tensor,
    *,
    extra_args: Mapping[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], Any] | None = None,
    disable: bool | None = None,
    noise_sampler: NoiseSampler | None = None,
    seeds: Sequence[int] | Tensor | None = None,
    generator: Generators | None = None,
) -> Tensor:
    """Return the result of running, from ``x``, a plan whose times are the model's sigmas; arguments as ``sample``.

    Raises:
        InputError: as ``sample``.
    """
    checks.instance(Plan, "plan", plan, "give a Plan, as solver.plan(grid) returns")
    checks.function("model", model, "give one of k-diffusion's wrappers, called as model(x, sigma)")
    checks.tensor("x", x, "give the state at the first sigma as a tensor [n, …]")
    checks.check_callback("callback", callback)
    if extra_args is not None and not isinstance(extra_args, Mapping):
        raise InputError(f"extra_args is {checks.shown(extra_args)}: give keywords for the model, or leave it out.")
    if disable is not None:
        checks.flag("disable", disable)
    if plan.by_class:
        raise InputError(
            "the plan's formulas have a mean for each class, and k-diffusion's samplers are not told the classes: "
            "calibrate with analytic='last' for it, or sample with fs.execute."
        )
    called = _Called(model, plan, x, dict(extra_args or {}), callback)
    turned = isinstance(plan.process, TowardsNoise)
    with progress(plan.steps, disable) as advance:

        def stepped(step: int, t: Tensor, x_t: Tensor, x0: Tensor) -> None:
            called.call_back(step, x_t, x0)  # Of a step that a formula began, in place of the network.
            advance()

        made = execute(
            plan,
            NoisePredictor(called, plan.process) if turned else called,  # type: ignore[arg-type]
            x,
            seeds=seeds,
            generator=generator,
            noise_sampler=noise_sampler,
            callback=stepped,
        )
    return made.to(x.dtype)


class _Called:
    """A wrapper as a denoiser, called with one sigma a sample; the last call at each level is a step's start."""

    def __init__(
        self,
        model: Model,
        plan: Plan,
        x: Tensor,
        extra_args: dict[str, Any],
        callback: Callable[[dict[str, Any]], Any] | None,
    ) -> None:
        points = plan.call_points.tolist()
        times = plan.process.inner_time(plan.times) if isinstance(plan.process, TowardsNoise) else plan.times
        self.model, self.dtype, self.extra_args, self.callback = model, x.dtype, extra_args, callback
        self.sigmas = times.to(device=x.device, dtype=x.dtype)
        self.expanded = [self.sigmas[point].expand(x.shape[0]) for point in points]
        starts = {point: call for call, point in enumerate(points) if point < plan.steps}
        self.starts = {call: point for point, call in starts.items()}
        self.calls, self.called_back = 0, -1

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        state, call = x_t.to(self.dtype), self.calls
        self.calls += 1
        denoised = self.model(state, self.expanded[call], **self.extra_args)
        if call in self.starts:
            self.call_back(self.starts[call], state, denoised)
        return denoised

    def call_back(self, step: int, x_t: Tensor, denoised: Tensor) -> None:
        """Call the callback with k-diffusion's dictionary, once a step."""
        if self.callback is not None and step > self.called_back:
            self.called_back, sigma = step, self.sigmas[step]
            x = x_t.to(self.dtype, copy=True)
            self.callback({"x": x, "i": step, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})


@contextmanager
def progress(steps: int, disable: bool | None) -> Iterator[Callable[[], Any]]:
    """Show k-diffusion's bar over the steps while the body runs; the yielded function advances it by one."""
    if disable:
        yield lambda: None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise MissingPackageError("the progress bar needs tqdm: pip install tqdm, or pass disable=True.") from error
    with tqdm(total=steps, disable=disable) as bar:
        yield bar.update


def _checked(plan: Plan, sigmas: Tensor) -> Plan:
    """Return a ready plan in the coordinates of sigmas; refuse other ones than the plan's."""
    moved = in_sigma(plan)
    ours = sigmas_of(moved)
    if ours.shape != sigmas.shape or not torch.allclose(ours, sigmas.detach().cpu().double(), rtol=1e-6, atol=0.0):
        raise InputError(
            f"the plan is of the sigmas {_shown(ours)}, not of {_shown(sigmas)}: give those that it has, "
            "kdiffusion.sigmas_of(plan)."
        )
    return moved


def _levels(sigmas: Any) -> Tensor:
    """Return sigmas as a tensor [N + 1] of real numbers.

    Raises:
        InputError: if they are nothing of the kind.
    """
    try:
        levels = checks.as_given(sigmas)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"sigmas are {checks.shown(sigmas)}: give numbers that fall to 0.") from error
    if levels.ndim != 1 or levels.is_complex() or levels.dtype == torch.bool or levels.is_meta:
        raise InputError(f"sigmas are {tuple(levels.shape)} {levels.dtype}: give [N + 1] real numbers that fall to 0.")
    return levels


def _levels_of(model: Model) -> EDM:
    """Return EDM's process between the wrapper's lowest and highest level, or the default one if it has none."""
    low, high = (getattr(model, name, None) for name in ("sigma_min", "sigma_max"))
    return EDM() if low is None or high is None else EDM(float(low), float(high))


def _shown(sigmas: Tensor) -> list[float]:
    return [float(f"{sigma:.4g}") for sigma in sigmas.flatten()[:8]]

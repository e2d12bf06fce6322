"""The switch: fewstep put into a diffusers pipeline, summarised, and taken out."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from torch import nn

from fewstep import grids
from fewstep.checks import whole
from fewstep.errors import InputError
from fewstep.executor import folded
from fewstep.fingerprint import network_fingerprint, warn_if_other_fingerprint
from fewstep.grids.spectral import check_spectrum
from fewstep.guidance import checked_interval, guidance_named
from fewstep.guidance.words import GuidanceWords
from fewstep.integrations.diffusers.formulation import EDMFormulation
from fewstep.integrations.diffusers.guidance_interval import IntervalGuard
from fewstep.integrations.diffusers.known_pipelines import (
    boundary_timestep,
    branches_of,
    check_replaceable,
    needed_settings,
)
from fewstep.integrations.diffusers.last_call import Summary
from fewstep.integrations.diffusers.network_times import NetworkTimes, network_times
from fewstep.integrations.diffusers.origin import config_of
from fewstep.integrations.diffusers.placement import PLACEMENTS
from fewstep.integrations.diffusers.recipe import agree
from fewstep.integrations.diffusers.recommended import is_latent, recommended
from fewstep.integrations.diffusers.scheduler import FewStepScheduler
from fewstep.integrations.diffusers.stopwatch import Stopwatch
from fewstep.processes.base import on_host
from fewstep.recipe import Recipe, RecipeBook, load_recipe
from fewstep.recommended import at_experts, bound_for
from fewstep.skip import Profile, Tuned, for_calls, tuned
from fewstep.skip import named as named_profile
from fewstep.skip.calls import AUTO
from fewstep.solvers import Solver, spelled
from fewstep.time_grid import TimeGrid

__all__ = ["disable", "enable", "summary"]

PIPELINES = tuple(
    getattr(diffusers, name) for name in ("DiffusionPipeline", "ModularPipeline") if hasattr(diffusers, name)
)
NETWORKS = ("unet", "transformer", "transformer_2", "controlnet", "prior", "decoder")
COUNT, GUIDANCE = "num_inference_steps", "guidance_scale"


@dataclass
class _Enabled:
    """What was there before, and what the last call did."""

    scheduler: Any
    pipeline_class: type
    steps: int | None
    skips: list[Tuned] = field(default_factory=list)
    parts: list[DiffusionPipeline] = field(default_factory=list)
    interval: tuple[float, float] | None = None
    watch: Stopwatch | None = None
    guard: IntervalGuard | None = None
    guidance_scale: float | None = None
    auto: bool = False

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled; what the last call did is not."""
        return {**vars(self), "watch": None, "guard": None}


def enable(
    pipe: DiffusionPipeline,
    steps: int | None = None,
    *,
    solver: str | Solver | None = None,
    grid: str | Path | TimeGrid | None = None,
    skip: float | str | Path | Profile | None = None,
    recipe: Recipe | RecipeBook | Path | str | None = None,
    guidance_interval: Sequence[float] | None = None,
    **settings: Any,
) -> DiffusionPipeline:
    """Put a ``FewStepScheduler`` into ``pipe``, with the settings recommended for its family, and return ``pipe``.

    With ``skip`` and nothing else the pipeline keeps its own scheduler, the same object, and only its network is tuned:
    so with distilled models (consistency models, LCM, Turbo, Lightning), which belong to their scheduler.

    Only the scheduler and the default number of steps change; LoRA, caches, ControlNets, offloading and
    ``torch.compile`` of the network go on as they are. Enabling again replaces the settings. The scheduler is saved
    with the pipeline by ``save_pretrained``; ``steps`` and ``skip`` are not. A call can be given a default only by its
    class, so the pipeline's class is one made here, of the same name, until ``fs.disable``; it can be pickled.

    Args:
        pipe: a diffusers pipeline.
        steps: the number of steps of calls that do not give ``num_inference_steps``; None: the pipeline's default.
        solver: a name, "unipc", with settings, "unipc:order=2", or a solver, ``fs.UniPC(2)``.
        grid: a name, "karras", with settings, "karras:rho=5", a ``.json`` file, or a ``TimeGrid`` of the pipeline's
            process. "uniform_time:boundary=experts" has a time where the pipeline's two experts change.
        skip: Skip-Tuning of the network: ρ of its deepest skip, settings, "bottom=0.7,top=0.95", a ``.json`` file, or
            a profile; or "auto", each call's ρ by its number of steps (``fs.skip.for_calls``), not with the pipeline's
            own scheduler.
        recipe: a recipe of ``fs.calibrate`` or ``fewstep calibrate``, or its file, in place of ``solver`` and
            ``grid``; of a book of recipes the one of ``steps``. Warns if it was calibrated on another network. Its
            guidance is that of calls that give none, its skip profile that of the network unless ``skip`` is given.
        guidance_interval: (low, high): the pipeline guides where low < σ/α ≤ high, and elsewhere evaluates the
            condition's branch alone: half of a batch, or one call instead of two (Kynkäänniemi et al.,
            arXiv 2404.07724). Not together with caches of the network's features.
        **settings: further settings of ``FewStepScheduler``, by its names.

    Raises:
        InputError: if ``pipe`` is no pipeline with a scheduler, or one that computes around its scheduler, or a setting
            is unknown or out of its range, or the solver does not call the network once a step; the pipeline is then
            as it was.
    """
    if not isinstance(pipe, PIPELINES) or getattr(pipe, "scheduler", None) is None:
        raise InputError(f"pipe is {type(pipe).__name__}: give a diffusers pipeline that has a scheduler.")
    if skip is not None and not settings and all(x is None for x in (steps, solver, grid, recipe, guidance_interval)):
        if skip == AUTO:
            raise InputError("skip 'auto' is a rule for fewstep's solvers: give steps=8 or a solver too, or ρ itself.")
        return _put(pipe, None, None, skip, None)
    check_replaceable(pipe)
    if skip == AUTO and COUNT not in inspect.signature(type(pipe).__call__).parameters:
        raise InputError(f"skip 'auto' is by {COUNT}, which {type(pipe).__name__} does not take: give ρ itself.")
    interval = checked_interval(guidance_interval)
    if interval is not None:
        branches_of(pipe)  # Refused before anything changes.
    before = _state(pipe)
    original = pipe.scheduler if before is None else before.scheduler
    base = type(pipe) if before is None else before.pipeline_class
    config = config_of(original)
    if recipe is not None:
        if (solver, grid) != (None, None):
            raise InputError("a recipe decides solver and grid: leave them out.")
        recipe = _chosen(recipe, steps)
        guidance = _guidance_of(recipe, base)
        if guidance is not None and guidance.interval is not None and interval is None:
            interval = guidance.interval
            branches_of(pipe)
        scheduler = FewStepScheduler.from_recipe(recipe, config, **settings)
        _warn_if_other_model(pipe, scheduler, recipe)
        if skip is None and recipe.skip is not None:
            skip = Profile.from_json(json.dumps(recipe.skip))
        scale = None if guidance is None else guidance.scale
        return _put(pipe, scheduler, recipe.plan.nfe, skip, interval, scale)
    given = None
    if grid is not None:
        boundary = _boundary(pipe, config)
        given = None if isinstance(grid, str) and grid in PLACEMENTS else grids.read(grid, steps)
        check_spectrum(grid, _channels(pipe))
        named = at_experts(bound_for(grid, latent=is_latent(pipe)), boundary) if isinstance(grid, str) else grid
        settings["grid"] = named if given is None else given.times.tolist()
        steps = steps if given is None else given.steps
    if solver is not None:
        settings["solver"] = spelled(solver)
    if steps is not None and not _takes_count(pipe, base):
        raise InputError(f"{base.__name__} takes no {COUNT}: leave steps out.")
    if isinstance(steps, str):
        raise InputError(f"steps is {steps!r}: here it is the number of steps; write grid={steps!r}.")
    if steps is not None:
        steps = whole("steps", steps)
    scheduler = FewStepScheduler.from_config(
        config, **{**recommended(original, pipe, steps), **needed_settings(pipe), **settings}
    )
    if solver is not None:
        _check_stepped(scheduler, steps or _default_count(base))
    if given is not None and not agree(scheduler.formulation.process, given.process, given.times):
        raise InputError(f"the grid is of {given.process!r}, the pipeline of {scheduler.formulation.process!r}.")
    return _put(pipe, scheduler, steps, skip, interval)


def _boundary(pipe: Any, config: Mapping[str, Any]) -> float | None:
    """Return the time at which the pipeline's experts change; None if it has one network."""
    timestep = boundary_timestep(pipe)
    if timestep is None:
        return None
    return float(FewStepScheduler.from_config(config).formulation.time(torch.tensor(timestep)))


def _takes_count(pipe: Any, base: type) -> bool:
    """Return whether the pipeline's call takes a number of steps; a modular one's blocks say so."""
    blocks = getattr(pipe, "blocks", None)
    inputs = [] if blocks is None else [value.name for value in blocks.inputs]
    return COUNT in inspect.signature(base.__call__).parameters or COUNT in inputs


def _default_count(base: type) -> int:
    """Return the number of steps of a call that gives none, or one like it where the pipeline does not say."""
    parameter = inspect.signature(base.__call__).parameters.get(COUNT)
    return parameter.default if parameter is not None and isinstance(parameter.default, int) else 50


@on_host
def _check_stepped(scheduler: FewStepScheduler, steps: int) -> None:
    """Refuse a solver whose plans cannot be stepped, on even levels: what a call would find out.

    Raises:
        InputError: as ``folded``.
    """
    process = scheduler.formulation.process
    end: float | Literal["zero"] = "zero" if scheduler.config.final_sigmas_type == "zero" else process.t_min
    folded(scheduler.solver.plan(grids.uniform_logsnr(process, steps, end=end)))


def _chosen(recipe: Recipe | RecipeBook | Path | str, steps: Any) -> Recipe:
    """Return the recipe, of a book the one of ``steps``.

    Raises:
        InputError: if there is none of that number of steps.
    """
    if isinstance(recipe, RecipeBook):
        return recipe.chosen(steps)
    found = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, steps)
    if steps is not None and steps != found.plan.nfe:
        raise InputError(f"the recipe is of {found.plan.nfe} steps: leave steps out, or give steps={found.plan.nfe}.")
    return found


def _guidance_of(recipe: Recipe, base: type) -> GuidanceWords | None:
    """Return the guidance that a recipe runs with; None: the pipeline's.

    Raises:
        InputError: if it has a rule, which pipelines do not.
    """
    if recipe.guidance is None or GUIDANCE not in inspect.signature(base.__call__).parameters:
        return None
    guidance = guidance_named(recipe.guidance)
    if guidance.rule is not None or guidance.rescale:
        raise InputError(
            f"the recipe's guidance is {recipe.guidance!r}, and {base.__name__} guides itself: sample it by fewstep "
            "generate --recipe."
        )
    return guidance


def _put(
    pipe: DiffusionPipeline,
    scheduler: FewStepScheduler | None,
    steps: int | None,
    skip: float | str | Path | Profile | None,
    interval: tuple[float, float] | None,
    guidance_scale: float | None = None,
) -> DiffusionPipeline:
    """Return ``pipe`` with the scheduler in it (None: its own), its network tuned, and its calls watched."""
    before = _state(pipe)
    own = pipe.scheduler if before is None else before.scheduler
    auto = skip == AUTO
    first = for_calls(steps or 1) if auto else skip  # Of no call yet.
    skips = [] if first is None else _tuned(pipe, first, own if scheduler is None else scheduler)
    disable(pipe)
    base: type = type(pipe)
    parts = [part for part in vars(pipe).values() if isinstance(part, DiffusionPipeline)]
    parts = [part for part in parts if getattr(part, "scheduler", None) is pipe.scheduler]
    pipe._fewstep = _Enabled(
        pipe.scheduler, base, steps, skips, parts, interval, auto=auto, guidance_scale=guidance_scale
    )
    if scheduler is not None:
        for owner in (pipe, *parts):  # A combined pipeline's parts share its scheduler.
            owner.scheduler = scheduler
    pipe.__class__ = _watched(base)
    return pipe


def _warn_if_other_model(pipe: DiffusionPipeline, scheduler: FewStepScheduler, recipe: Recipe) -> None:
    """Warn if the recipe is of another network than the pipeline's."""
    formulation = scheduler.formulation
    prediction = "edm" if isinstance(formulation, EDMFormulation) else formulation.prediction
    network = next(iter(_networks(pipe).values()), None)
    warn_if_other_fingerprint(recipe, network_fingerprint(network, prediction))


def disable(pipe: DiffusionPipeline) -> DiffusionPipeline:
    """Restore ``pipe`` to what it was before ``enable``; a pipeline that is not enabled is left as it is.

    Raises:
        InputError: if ``pipe`` is no pipeline.
    """
    if not isinstance(pipe, PIPELINES):
        raise InputError(f"pipe is {type(pipe).__name__}: give a diffusers pipeline.")
    state = _state(pipe)
    if state is not None:
        for handle in state.skips:
            handle.remove()
        for owner in (pipe, *state.parts):
            owner.scheduler = state.scheduler
        pipe.__class__ = state.pipeline_class
        del pipe._fewstep
    return pipe


def summary(pipe: DiffusionPipeline) -> Summary:
    """Return the settings active in ``pipe`` and a summary of its last call, for printing.

    Raises:
        InputError: if the pipeline is not enabled, and its scheduler is not a ``FewStepScheduler``.
    """
    scheduler, state = getattr(pipe, "scheduler", None), _state(pipe)
    if state is not None and state.skips and scheduler is state.scheduler:
        return Summary.of_own_scheduler(pipe, state.watch, _source(state))
    if not isinstance(scheduler, FewStepScheduler):
        raise InputError(f"fewstep is not active in this {type(pipe).__name__}: call fs.enable(pipe, steps=8) first.")
    if state is None:
        return Summary.of(pipe, scheduler, None, False)
    return Summary.of(pipe, scheduler, state.watch, bool(state.skips), state.interval, state.guard, _source(state))


def _state(pipe: Any) -> _Enabled | None:
    return getattr(pipe, "__dict__", {}).get("_fewstep")


def _source(state: _Enabled) -> str | None:
    """Return ρ of the network and where it comes from, if that is a rule or several searches."""
    profile = state.skips[0].profile if state.skips else None
    source = None if profile is None else profile.origin.get("source")
    if profile is None or source is None or (state.auto and state.watch is None and state.steps is None):
        return None
    return f"ρ {profile.bottom:.4g} … {profile.top:.4g}, {source}"


def _set_by_count(state: _Enabled, arguments: Mapping[str, Any]) -> None:
    """Give the skips of an automatic ρ that of a call's number of steps."""
    values = (arguments.get(name) for name in ("timesteps", "sigmas"))
    given = next((value for value in values if value is not None), None)
    profile = for_calls(arguments[COUNT] if given is None else len(given))
    for handle in state.skips:
        handle.set(profile)


def _channels(pipe: DiffusionPipeline) -> tuple[int] | None:
    """Return the number of channels of what the pipeline samples, where its parts say it."""
    for part, name in (("vae", "latent_channels"), ("unet", "in_channels")):
        config = getattr(getattr(pipe, part, None), "config", None)
        if config is not None:
            count = getattr(config, name, None)
            return (count,) if isinstance(count, int) else None
    return None


def _networks(pipe: DiffusionPipeline) -> dict[str, nn.Module]:
    parts = {name: getattr(pipe, name, None) for name in NETWORKS}
    return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}


def _tuned(pipe: DiffusionPipeline, skip: float | str | Path | Profile, scheduler: SchedulerMixin) -> list[Tuned]:
    """Return the handles of the tuned networks; none stays tuned if one cannot be."""
    handles: list[Tuned] = []
    profile = named_profile(skip)
    times = network_times(scheduler) if profile.over_sigma else NetworkTimes(None, None)
    try:
        for name, network in _networks(pipe).items():
            if name != "controlnet":
                handles.append(tuned(network, profile=profile, process=times.process, network_time=times.network_time))
    except BaseException:  # An interrupt too.
        for handle in handles:
            handle.remove()
        raise
    return handles


def _guard(pipe: Any, state: _Enabled, networks: dict[str, nn.Module]) -> AbstractContextManager[Any]:
    """Return what keeps guidance to its interval during a call."""
    state.guard = None
    if state.interval is None or not isinstance(pipe.scheduler, FewStepScheduler):
        return nullcontext()
    state.guard = IntervalGuard(pipe.scheduler, list(networks.values()), state.interval, branches_of(pipe))
    return state.guard


@functools.cache
def _watched(base: type) -> type:
    """Return ``base`` with a call that knows the default number of steps and is timed; its name stays."""
    signature = inspect.signature(base.__call__)

    @functools.wraps(base.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        state = _state(self)
        if state is None:
            return base.__call__(self, *args, **kwargs)
        given = {*kwargs, *signature.bind_partial(self, *args, **kwargs).arguments}
        if state.steps is not None and COUNT not in given:
            kwargs[COUNT] = state.steps
        if state.guidance_scale is not None and GUIDANCE not in given:
            kwargs[GUIDANCE] = state.guidance_scale
        if state.auto:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            _set_by_count(state, bound.arguments)
        networks = _networks(self)
        with Stopwatch(networks) as state.watch, _guard(self, state, networks):
            return base.__call__(self, *args, **kwargs)

    def reduce(self: Any, protocol: Any) -> Any:
        return _unpickled, (base, vars(self))

    added = {"__call__": call, "__reduce_ex__": reduce, "__module__": base.__module__, "__doc__": base.__doc__}
    watched = type(base.__name__, (base,), added)
    watched.__qualname__ = base.__qualname__
    return watched


def _unpickled(base: Any, state: dict[str, Any]) -> Any:
    """Return an enabled pipeline from its pickle: its class is made at run time."""
    pipe = base.__new__(base)
    vars(pipe).update(state)
    pipe.__class__ = _watched(base)
    return pipe

"""Any diffusers pipeline as a data prediction: the pipeline is called for one step at a time."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewstep.checks import as_given
from fewstep.denoiser import Condition, DataPredictor, network_device
from fewstep.errors import InputError, MissingPackageError
from fewstep.models.pipeline_layout import Drawn, Layout, layout_of
from fewstep.plan import Plan
from fewstep.processes import Process
from fewstep.time_grid import TimeGrid

__all__ = ["PROMPTS", "PipelineDenoiser", "check_call", "from_pipeline"]

PROMPTS = ("prompt", "negative_prompt", "prompt_2", "negative_prompt_2", "prompt_3", "negative_prompt_3")
DECIDED = ("latents", "num_inference_steps", "timesteps", "sigmas", "output_type", "return_dict")
"""What fewstep decides in each call of a pipeline."""
LABELS = "class_labels"
ENCODERS = ("encode_prompt", "encode_image", "_encode_image", "_encode_vae_image", "generate_language_model")
"""Methods that encode conditions, whose results are kept."""
NETWORKS = ("transformer", "unet", "prior", "decoder")
UNGUIDED = {"ZImagePipeline": 0.0, "ZImageImg2ImgPipeline": 0.0, "ZImageInpaintPipeline": 0.0}
"""The scale that is none, where it is not 1."""
REFUSALS = (ValueError, TypeError, RuntimeError, IndexError, AttributeError)
"""Exceptions that pipelines raise for latents or batches of another kind than theirs."""


def from_pipeline(pipe: Any, **call: Any) -> PipelineDenoiser:
    """Return a diffusers pipeline as a data prediction, for every solver, grid and calibration of fewstep.

    A pipeline that is called for one step, at a given time and with given latents, is a data prediction: its guidance,
    packing of latents, experts, ControlNets and adapters are part of it. The pipeline itself stays as it is; it is
    called a few times here, at first with latents of its own, to see their shape and its process.

    The state is what the pipeline hands to its scheduler's ``step``, [batch, *model.shape]; x_T = σ·ε. Prompts and
    images are encoded once. Conditions are the numbers of the prompts: with ``prompt=["a cat", "a dog"]`` the samples
    ``cond=[0, 1, 1]`` are a cat and two dogs. Rows of ``prompt_embeds`` and its companions, and of ``class_labels``,
    are numbered likewise. Each call of the network reads the time back from its device.

    Equals: ``fs.sample(from_pipeline(pipe, …), solver, grid, x_T)`` is the pipeline's loop under
    ``FewStepScheduler`` with the same solver and grid, before it decodes.

    Args:
        pipe: a pipeline whose ``__call__`` takes ``latents``, on any device.
        **call: what it is called with: prompt, negative_prompt, guidance_scale, height, width, num_frames, image, ….

    Raises:
        InputError: if it is no pipeline, takes no latents, changes the latents that it is given, or those between its
            steps, or its scheduler's process is not known here; and what is wrong with the call, in the pipeline's
            own words.
        MissingPackageError: if diffusers is not installed.
    """
    try:
        import diffusers
    except ImportError as error:
        raise MissingPackageError("pipelines are diffusers': pip install 'fewstep[diffusers]'.") from error
    if not isinstance(pipe, diffusers.DiffusionPipeline) or getattr(pipe, "scheduler", None) is None:
        raise InputError(f"pipe is {type(pipe).__name__}: give a diffusers pipeline that has a scheduler.")
    check_call(type(pipe), call)
    return PipelineDenoiser(pipe, call)


def check_call(kind: type, call: Mapping[str, Any]) -> None:
    """Refuse what a class of pipelines does not take, or is not to be given.

    Raises:
        InputError: with what it takes.
    """
    from fewstep.integrations.diffusers.known_pipelines import check_takes

    if "latents" not in inspect.signature(kind.__call__).parameters:
        raise InputError(f"{kind.__name__} takes no latents, so it cannot be called for one step from a state.")
    for name in call:
        if name in DECIDED:
            raise InputError(f"{name} is what fewstep decides in each call: leave it out.")
    check_takes(kind, call, DECIDED)


class PipelineDenoiser(DataPredictor):
    """A pipeline called for one step as a data prediction; made by ``fs.models.from_pipeline``.

    Attributes:
        pipe: a copy of the pipeline that shares its networks and has a scheduler of its own.
        original: the pipeline.
        network: the pipeline's (first) denoising network.
        prediction: what it predicts, one of ``fewstep.denoiser.PREDICTIONS``.
        process, shape: of the state that the pipeline hands to its scheduler.
        guidance_scale: the one given, else the pipeline's default; 1 where it takes none.
        interval: σ/α in which it guides, (low, high]; None is everywhere.
        layout: how the pipeline's ``latents`` are packed into a state.
    """

    def __init__(self, pipe: Any, call: Mapping[str, Any]) -> None:
        from fewstep.integrations.diffusers.one_call import OneCall
        from fewstep.integrations.diffusers.origin import config_of

        self.original, self.pipe = pipe, copy.copy(pipe)
        self.scheduler = OneCall.from_config(config_of(pipe.scheduler))
        vars(self.pipe)["scheduler"] = self.scheduler  # Beside the pipeline's bookkeeping, which the copy shares.
        vars(self.pipe)["_progress_bar_config"] = {"disable": True}
        for name in ENCODERS:
            if callable(getattr(pipe, name, None)):
                vars(self.pipe)[name] = _remembered(getattr(self.pipe, name))
        self._parameters = inspect.signature(pipe.__call__).parameters
        self._call_settings, self._rows = _split(call)
        self._alone = False
        self.interval: tuple[float, float] | None = None
        self.network = next((n for n in (getattr(pipe, name, None) for name in NETWORKS) if n is not None), None)
        default = self._parameters["guidance_scale"].default if "guidance_scale" in self._parameters else 1.0
        self.guidance_scale = call.get("guidance_scale", default)
        self._generator = call.get("generator")
        self._name = type(pipe).__name__
        self.layout = self._probe()

    @property
    def process(self) -> Process:  # type: ignore[override]
        """The noising process, with the shift that the pipeline asks for at this resolution."""
        return self._process

    @property
    def boundary(self) -> float | None:
        """The time down to which, itself included, the first of two experts is called; None if there is one network.

        A grid may have a time there (``boundary=``).
        """
        from fewstep.integrations.diffusers.known_pipelines import boundary_timestep

        timestep = boundary_timestep(self.original)
        return None if timestep is None else float(self.scheduler.formulation.time(torch.tensor(timestep)))

    @property
    def num_classes(self) -> int | None:  # type: ignore[override]
        """The number of conditions; None for a pipeline that takes none."""
        return len(next(iter(self._rows.values()))) if self._rows else None

    @property
    def takes_guidance(self) -> bool:
        """Whether the pipeline takes a guidance scale."""
        return "guidance_scale" in self._parameters

    @property
    def call(self) -> dict[str, Any]:
        """What the pipeline is called with, the conditions in rows."""
        return {**self._call_settings, **self._rows}

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return network_device(self.network, None) if isinstance(self.network, nn.Module) else self.pipe.device

    @torch.no_grad()
    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition = None) -> Tensor:
        """Return D(x_t, t), in ``x_t``'s dtype.

        Raises:
            InputError: if there are several conditions and none is chosen.
        """
        numbers = self._numbers(cond, len(x_t))
        with self.scheduler.lock:  # A pipeline is called by one thread at a time.
            return self._predicted(x_t, t, numbers)

    def _predicted(self, x_t: Tensor, t: Tensor, numbers: list[int]) -> Tensor:
        self.scheduler.at, x0 = t.to("cpu"), None
        if len(x_t) > 1 and not self._alone:
            x0 = self._tried(x_t, numbers)
        if x0 is None:
            parts = [self._evaluated(x_t[i : i + 1], numbers[i : i + 1]) for i in range(len(x_t))]
            x0 = torch.cat(parts)
        return x0

    @torch.no_grad()
    def decode(self, x0: Tensor, cond: Condition = None, *, output_type: str | None = None) -> Any:
        """Return samples decoded by the pipeline: a list or array of images, videos or waveforms.

        Args:
            x0: samples [batch, *shape].
            cond: as in a call; None: the first, for few pipelines look at it here.
            output_type: "pil", "np" or "pt", as the pipeline takes it; None for the pipeline's default.

        Raises:
            InputError: if the shape is another one.
        """
        if tuple(x0.shape[1:]) != self.shape:
            raise InputError(f"x0 has shape {tuple(x0.shape)}: the pipeline's samples are [batch, {self.shape}].")
        if not len(x0):
            raise InputError("x0 has no samples: give one or more to decode.")
        numbers = [0] * len(x0) if cond is None else self._numbers(cond, len(x0))
        made = []
        with self.scheduler.lock:
            self.scheduler.at = torch.zeros((), dtype=torch.float64)
            for i in range(len(x0)):
                kwargs = {} if output_type is None else {"output_type": output_type}
                latents = self.layout.latents_of(x0[i : i + 1].to(self._dtype))
                made.append(self._called(latents, numbers[i : i + 1], **kwargs)[0])
        if isinstance(made[0], list):
            return [one for part in made for one in part]
        return torch.cat(made) if isinstance(made[0], Tensor) else np.concatenate(made)

    def add_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Return the numbers of ``prompts`` as conditions, int64 [n]; new ones are added to those that there are.

        Raises:
            InputError: if the pipeline takes no prompts, or was given embeddings in their place.
        """
        known: Any = self._rows.get("prompt")
        if known is None or any(isinstance(rows, Tensor) for rows in self._rows.values()):
            raise InputError(
                f"{self._name} was not given a prompt, so it takes no others: write from_pipeline(pipe, prompt='')."
            )
        for prompt in dict.fromkeys(prompts):
            if prompt not in known:
                for name, rows in self._rows.items():
                    self._rows[name] = [*rows, prompt if name == "prompt" else rows[0]]
                known = self._rows["prompt"]
        return torch.tensor([known.index(prompt) for prompt in prompts])

    def with_guidance(self, guidance_scale: float, interval: tuple[float, float] | None = None) -> PipelineDenoiser:
        """Return the pipeline at another guidance scale, and at a scale of 1 outside ``interval`` (σ/α).

        Raises:
            InputError: if the pipeline takes no ``guidance_scale``, or its network is given the scale.
        """
        if not self.takes_guidance:
            raise InputError(f"{self._name} takes no guidance_scale: leave it out.")
        guided = copy.copy(self)
        guided._call_settings = {**self._call_settings, "guidance_scale": guidance_scale}
        guided.guidance_scale, guided.interval = guidance_scale, interval
        if interval is not None and getattr(getattr(self.network, "config", None), "guidance_embeds", False):
            raise InputError(f"the network of {self._name} is given the scale in each call: leave the interval out.")
        return guided

    @property
    def spelling(self) -> float | str:
        """The scale, with its interval if there is one, as ``--guidance`` takes it."""
        if self.interval is None:
            return self.guidance_scale
        low, high = self.interval
        return f"{self.guidance_scale:g}:interval={low:g}:{high:g}"

    def evaluations(self, t: float, conditional: bool = True) -> int:
        """Return how often the network is evaluated for one D at ``t``: twice where the pipeline guides itself."""
        return 2 if self._guides_itself and self._is_guided(t) else 1

    @property
    def _guides_itself(self) -> bool:
        """Whether the pipeline evaluates two branches; for a network that is given the scale it does not."""
        negative = [value for name, value in self._rows.items() if name.startswith("negative")]
        if self._call_settings.get("true_cfg_scale", 1.0) > 1.0 and negative:
            return True
        embedded = getattr(getattr(self.network, "config", None), "guidance_embeds", False)
        return (
            "guidance_scale" in self._parameters
            and not embedded
            and self.guidance_scale > UNGUIDED.get(self._name, 1.0)
        )

    def _is_guided(self, t: float | Tensor) -> bool:
        if self.interval is None:
            return True
        return self.interval[0] < float(torch.exp(-self.process.half_logsnr(t))) <= self.interval[1]

    def default(self, steps: int) -> tuple[str, Plan]:
        """Return the name of the pipeline's scheduler, and what it runs in ``steps`` steps as a plan.

        Raises:
            InputError: if the scheduler is none of fewstep's solvers.
        """
        from fewstep.integrations.diffusers.counterpart import default_plan

        name, plan = default_plan(self.original, steps, {**self._call_settings, **_chosen(self._rows, [0])})
        return name, replace(plan, grid=TimeGrid(self.process, plan.times))

    def check_cond(self, cond: Any, batch: int) -> Condition:
        """Return the numbers of the conditions, int64 [batch], or None for the only one."""
        return None if cond is None else super().check_cond(cond, batch)

    def _numbers(self, cond: Condition, batch: int) -> list[int]:
        if cond is None:
            if self.num_classes not in (None, 1):
                raise InputError(
                    f"the pipeline has {self.num_classes} conditions: choose one for each sample, cond=[0, 1, …]."
                )
            return [0] * batch
        return as_given(cond).flatten().expand(batch).tolist()

    def _tried(self, x_t: Tensor, numbers: list[int]) -> Tensor | None:
        """Return D of the whole batch, or None from the first call on if the pipeline takes one sample at a time."""
        try:
            return self._evaluated(x_t, numbers)
        except REFUSALS:
            self._alone = True
            return None

    def _evaluated(self, x_t: Tensor, numbers: list[int]) -> Tensor:
        self._called(self.layout.latents_of(x_t.to(self._dtype)), numbers)
        seen, output = self.scheduler.sample, self.scheduler.output
        self.scheduler.sample = self.scheduler.output = None
        if seen is None or output is None or seen.shape != x_t.shape:
            shown = None if seen is None else tuple(seen.shape)
            raise InputError(
                f"the pipeline handed its scheduler a state of shape {shown} for one of {tuple(x_t.shape)}: "
                "it cannot be used as a model."
            )
        return self.scheduler.x0_of(self.scheduler.at)(x_t, output)

    def _called(self, latents: Tensor | None, numbers: list[int], **more: Any) -> Any:
        """Call the pipeline for one step from ``latents``, or from those that it draws (None)."""
        settings = {**self._call_settings, **_chosen(self._rows, numbers)}
        at = self.scheduler.at
        if self.interval is not None and at is not None and float(at) > 0.0 and not self._is_guided(at):
            settings["guidance_scale"] = UNGUIDED.get(self._name, 1.0)
        # Two steps are asked for, since some pipelines halve their number; there is one all the same.
        for name, value in (("num_inference_steps", 2), ("output_type", "latent"), ("generator", self._seeded())):
            if name in self._parameters:
                settings.setdefault(name, value)
        if "batch_size" in self._parameters:
            settings["batch_size"] = len(numbers)
        if latents is not None:
            settings["latents"] = latents
        return self.pipe(**{**settings, **more})

    def _seeded(self) -> Any:
        """Return a generator that is the same in every call: what else a pipeline draws is part of the model."""
        if self._generator is None:
            return torch.Generator().manual_seed(0)
        chosen = self._generator if isinstance(self._generator, list) else [self._generator]
        fresh = [torch.Generator(g.device).manual_seed(g.initial_seed()) for g in chosen]
        return fresh if isinstance(self._generator, list) else fresh[0]

    @torch.no_grad()
    def _probe(self) -> Layout:
        """See the process, the prediction and the shape of the state, and return how latents are packed into it."""
        try:
            with Drawn() as drawn:
                self._called(None, [0])
        except InputError:
            raise
        except REFUSALS as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{self._name} does not take this call for one step: {reason}") from error
        seen, formulation = self.scheduler.sample, self.scheduler.formulation
        if seen is None and "strength" in self._parameters:
            raise InputError(
                f"{self._name} leaves out the first steps by its strength, so none is left of one: give strength=1, or "
                "leave it its own loop: fs.enable(pipe, steps=…)."
            )
        if seen is None:
            raise InputError(f"{self._name} did not call its scheduler's step: it has no loop to replace.")
        self._process, self.prediction = formulation.process, formulation.prediction
        self.shape, self._dtype = tuple(seen.shape[1:]), seen.dtype
        layout = layout_of(seen, drawn.shapes, self._arrived)
        if layout is None:
            raise InputError(f"{self._name} changes the latents that it is given: it cannot be used as a model.")
        if not self._carries_on(layout.latents_of(seen)):
            raise InputError(
                f"{self._name} changes the latents between its steps, as inpainting does, and one step is not all of "
                "it: it cannot be used as a model. fs.enable(pipe, steps=…) runs its own loop."
            )
        return layout

    def _carries_on(self, latents: Tensor) -> bool:
        """Return whether the second of two steps is handed what the first one returned, as far as there is a second."""
        scheduler = self.scheduler
        drawn = torch.randn(scheduler.sample.shape, generator=torch.Generator().manual_seed(1))
        scheduler.result, scheduler.twice = drawn.to(scheduler.sample), True
        try:
            self._called(latents, [0])
        except REFUSALS:
            return True
        finally:
            returned, scheduler.result, scheduler.twice = scheduler.result, None, False
        return len(scheduler.handed) < 2 or torch.equal(scheduler.handed[1], returned.to(scheduler.handed[1]))

    def _arrived(self, latents: Tensor) -> Tensor | None:
        """Return the state into which the pipeline packs latents; None if it refuses them."""
        self.scheduler.sample = None
        try:
            self._called(latents, [0])
        except REFUSALS:
            return None
        return self.scheduler.sample


def _split(call: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Sequence[Any] | Tensor]]:
    """Return what a pipeline is called with: settings for all conditions, and rows of which each has its own.

    Raises:
        InputError: if their numbers of rows differ.
    """
    settings: dict[str, Any] = {}
    rows: dict[str, Sequence[Any] | Tensor] = {}
    for name, value in call.items():
        if name in PROMPTS and value is not None:
            rows[name] = [value] if isinstance(value, str) else list(value)
        elif name == LABELS and value is not None:
            rows[name] = as_given(value).flatten().tolist()
        elif isinstance(value, (Tensor, list)) and any(part in name for part in ("prompt_embeds", "attention_mask")):
            rows[name] = value
        elif name != "generator":
            settings[name] = value
    counts = {name: len(values) for name, values in rows.items()}
    most = max(counts.values(), default=1)
    for name, count in counts.items():
        if count == 0:
            raise InputError(f"{name} is empty: give one or more.")
        if count not in (1, most):
            raise InputError(f"{name} has {count} conditions, others have {most}: give as many, or one for all.")
    repeated = {
        name: values if len(values) == most else _chosen({name: values}, [0] * most)[name]
        for name, values in rows.items()
    }
    return settings, repeated


def _chosen(rows: Mapping[str, Sequence[Any] | Tensor], numbers: Sequence[int]) -> dict[str, Any]:
    """Return the rows of these numbers."""
    return {
        name: values[torch.as_tensor(numbers, device=values.device)]
        if isinstance(values, Tensor)
        else [values[number] for number in numbers]
        for name, values in rows.items()
    }


def _remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` with its results kept, by the values of its arguments; of objects, by their identity."""
    results: dict[Any, tuple[Any, Any]] = {}

    def remembered(*args: Any, **kwargs: Any) -> Any:
        key = _key((args, tuple(sorted(kwargs.items()))))
        if key not in results:
            results[key] = (args, kwargs), function(*args, **kwargs)  # The arguments live on with their identities.
        return results[key][1]

    return remembered


def _key(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_key(part) for part in value)
    if isinstance(value, Tensor) or getattr(type(value), "__hash__", None) is None:
        return type(value).__name__, id(value)
    return value

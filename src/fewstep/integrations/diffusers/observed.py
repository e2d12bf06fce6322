"""The calls of a pipeline to its scheduler, and the schedule that it gets, seen without a network call."""

from __future__ import annotations

import copy
import functools
import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.checks import whole
from fewstep.errors import InputError, reason_of
from fewstep.integrations.diffusers.formulation import FlowFormulation, Formulation, formulation_of
from fewstep.integrations.diffusers.known_pipelines import boundary_timestep, check_takes
from fewstep.integrations.diffusers.origin import config_of
from fewstep.integrations.diffusers.scheduler import FewStepScheduler

__all__ = ["COUNT", "Observed", "observed"]

COUNT = "num_inference_steps"


class _Seen(Exception):
    """Ends a pipeline's call once its schedule is made."""


@dataclass(frozen=True)
class Observed:
    """A pipeline's scheduler after ``set_timesteps``, as the pipeline called it.

    Attributes:
        pipe: the pipeline.
        scheduler: a copy of its scheduler.
        asked: the arguments of ``set_timesteps``, by name.
        call: what the pipeline was called with.
        formulation: the scheduler's process and conventions, as fewstep reads its configuration.
    """

    pipe: Any
    scheduler: Any
    asked: Mapping[str, Any]
    call: Mapping[str, Any]
    formulation: Formulation

    @property
    def config(self) -> Mapping[str, Any]:
        """The scheduler's configuration."""
        return self.scheduler.config

    @property
    def is_flow(self) -> bool:
        """Whether the scheduler's process is a flow."""
        return isinstance(self.formulation, FlowFormulation)

    @property
    def timesteps(self) -> Tensor:
        """The timesteps that the network is fed, float64 [N]."""
        return torch.as_tensor(self.scheduler.timesteps).double().cpu()

    @property
    def sigmas(self) -> Tensor | None:
        """The levels in diffusers' sense, float64 [N + 1]; None for a scheduler that has none."""
        sigmas = getattr(self.scheduler, "sigmas", None)
        return None if sigmas is None else torch.as_tensor(sigmas).double().cpu()

    @property
    def experts(self) -> dict[str, int] | None:
        """The network calls of each of the pipeline's two experts, by its name; None if it has one network."""
        boundary = boundary_timestep(self.pipe)
        if boundary is None:
            return None
        first = int((self.timesteps >= boundary).sum())
        return {"transformer": first, "transformer_2": len(self.timesteps) - first}

    @property
    def times(self) -> Tensor:
        """The times of the process, float64 [N] or [N + 1]: of the levels, where there are any."""
        sigmas = self.sigmas
        if sigmas is None or len(sigmas) != len(self.timesteps) + 1:
            return self.formulation.time(self.timesteps)
        if self.is_flow:
            return 1.0 - sigmas if getattr(self.formulation, "inverted", False) else sigmas
        positive = sigmas > 0
        times = torch.zeros_like(sigmas)
        times[positive] = self.formulation.process.time(-sigmas[positive].log())
        return times


def observed(pipe: Any, steps: int | None, call: Mapping[str, Any]) -> Observed:
    """Call a copy of ``pipe`` up to its scheduler's ``set_timesteps``, and return the schedule made there.

    Raises:
        InputError: if the pipeline does not get that far, in its own words, or its process is not known here.
    """
    seen = copy.copy(pipe)
    scheduler = copy.deepcopy(pipe.scheduler)
    asked: dict[str, Any] = {}
    original = scheduler.set_timesteps

    @functools.wraps(original)
    def set_timesteps(*args: Any, **kwargs: Any) -> None:
        asked.update(inspect.signature(original).bind(*args, **kwargs).arguments)
        original(*args, **kwargs)
        raise _Seen

    scheduler.set_timesteps = set_timesteps
    vars(seen)["scheduler"] = scheduler
    vars(seen)["_progress_bar_config"] = {"disable": True}
    parameters = inspect.signature(pipe.__call__).parameters
    settings = dict(call)
    check_takes(type(pipe), call)
    if steps is not None:
        if COUNT not in parameters:
            raise InputError(f"{type(pipe).__name__} takes no {COUNT}: leave steps out.")
        settings[COUNT] = whole("steps", steps)
    if "prompt" in parameters and not any("prompt" in name for name in call):
        settings["prompt"] = ""
    try:
        seen(**settings)
    except _Seen:
        pass
    except Exception as error:  # Pipelines refuse calls by exceptions of many kinds.
        raise InputError(
            f"{type(pipe).__name__} does not get to its first step: {reason_of(error).rstrip('.')}; what its call "
            "needs is given as fs.doctor(pipe, height=512) or --call height=512."
        ) from error
    del scheduler.set_timesteps
    if not asked:
        raise InputError(f"{type(pipe).__name__} did not call its scheduler's set_timesteps: there is no schedule.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = FewStepScheduler.from_config(config_of(pipe.scheduler))
        formulation = formulation_of(read.config, read._alphas_cumprod, asked.get("mu", 1.0))
    return Observed(pipe, scheduler, asked, settings, formulation)

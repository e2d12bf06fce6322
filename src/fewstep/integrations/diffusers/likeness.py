"""The likeness of a network's output to its noise, which tells an epsilon network from others."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch

from fewstep.errors import InputError, reason_of
from fewstep.integrations.diffusers.observed import COUNT
from fewstep.integrations.diffusers.one_call import OneCall
from fewstep.integrations.diffusers.origin import config_of

__all__ = ["likeness"]


@torch.no_grad()
def likeness(pipe: Any, call: Mapping[str, Any]) -> float:
    """Return the correlation of the network's output with x_t at the noisiest time, by one step of the pipeline.

    There x_t is nearly all noise: the output of a network that predicts it is nearly x_t/σ, of likeness 1; a flow's,
    ε − x_0, has √(1/(1 + s²)) on data of variance s²; v ≈ −x_0 and x_0 have about none.

    Args:
        pipe: the pipeline, which stays as it is.
        call: what it is called with.

    Raises:
        InputError: if the pipeline does not get through that step.
    """
    seen, scheduler = copy.copy(pipe), OneCall.from_config(config_of(pipe.scheduler))
    vars(seen)["scheduler"] = scheduler
    vars(seen)["_progress_bar_config"] = {"disable": True}
    parameters = inspect.signature(pipe.__call__).parameters
    fixed = {COUNT: 2, "output_type": "latent", "generator": torch.Generator().manual_seed(0)}
    settings = {**call, **{name: value for name, value in fixed.items() if name in parameters}}
    try:
        seen(**settings)
    except Exception as error:
        # What fails after the step, such as a decoder that takes no latents, is no matter.
        if scheduler.output is None:
            raise InputError(f"{type(pipe).__name__} does not get through a step: {reason_of(error)}") from error
    if scheduler.sample is None or scheduler.output is None:
        raise InputError(f"{type(pipe).__name__} did not call its scheduler's step: there is no output to look at.")
    x, output = (value.double().flatten() for value in (scheduler.sample, scheduler.output))
    return float(torch.nn.functional.cosine_similarity(x, output, dim=0))

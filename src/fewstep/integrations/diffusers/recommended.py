"""The recommended settings of a pipeline."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

from diffusers import DiffusionPipeline, SchedulerMixin

from fewstep import recommended as rule
from fewstep.integrations.diffusers.formulation import FlowFormulation
from fewstep.integrations.diffusers.origin import config_of
from fewstep.integrations.diffusers.scheduler import FewStepScheduler
from fewstep.processes.spec import parse

__all__ = ["is_latent", "recommended"]

DECODERS = ("vae", "vqvae", "movq", "vqgan")
"""The names of decoders, one of which a pipeline over latents has."""


def is_latent(pipe: DiffusionPipeline) -> bool:
    """Return whether a pipeline works on latents of an autoencoder."""
    return any(getattr(pipe, name, None) is not None for name in DECODERS)


def recommended(scheduler: SchedulerMixin, pipe: DiffusionPipeline, steps: int | None = None) -> dict[str, Any]:
    """Return the settings for a pipeline whose given scheduler is ``scheduler``, as ``fewstep.recommended`` has them.

    A flow keeps the levels that the pipeline brings ("simple"): even before the pipeline's shift, which is what the
    rule says of it, with the pipeline's ends. A ``FewStepScheduler`` keeps its settings.
    """
    if isinstance(scheduler, FewStepScheduler):
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        formulation = FewStepScheduler.from_config(config_of(scheduler)).formulation
    latent = is_latent(pipe)
    video = "num_frames" in inspect.signature(type(pipe).__call__).parameters
    choice = rule.recommended(formulation.process, steps, latent=latent, video=video)
    solver, of_solver = parse(choice.solver)
    settings = {"solver": solver, "solver_order": of_solver["order"]}
    return {**settings, "grid": "simple" if isinstance(formulation, FlowFormulation) else choice.grid}

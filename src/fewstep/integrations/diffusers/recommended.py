"""What a pipeline's family is best run with."""

from __future__ import annotations

import warnings
from typing import Any

from diffusers import DiffusionPipeline, SchedulerMixin

from fewstep.integrations.diffusers.formulation import EDMFormulation, FlowFormulation
from fewstep.integrations.diffusers.origin import config_of
from fewstep.integrations.diffusers.scheduler import FewStepScheduler

__all__ = ["recommended"]

DECODERS = ("vae", "vqvae", "movq", "vqgan")
"""What a pipeline over latents has one of."""


FEW = 10
"""Below so many steps third order overshoots (docs/choosing.md)."""


def recommended(scheduler: SchedulerMixin, pipe: DiffusionPipeline, steps: int | None = None) -> dict[str, Any]:
    """Return the settings for the family of a pipeline whose own scheduler is ``scheduler``, in so many steps.

    ===========================  =====================================================================
    family                       settings
    ===========================  =====================================================================
    flow (SD3, Flux, Wan, …)     UniPC of order 2 on the pipeline's own, shifted levels
    latent VP (SD, SDXL, DiT …)  UniPC of order 2 on optimised steps with p = 2
    pixel-space VP (DDPM)        UniPC of order 3, or 2 below 10 steps, on optimised steps with p = 1
    EDM (Playground 2.5, SVD)    UniPC of order 2 on Karras et al.'s levels
    ===========================  =====================================================================

    A ``FewStepScheduler`` that is there already keeps its settings.
    """
    if isinstance(scheduler, FewStepScheduler):
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        formulation = FewStepScheduler.from_config(config_of(scheduler)).formulation
    if isinstance(formulation, (EDMFormulation, FlowFormulation)):
        return {"solver": "unipc", "solver_order": 2, "grid": "simple"}
    if all(getattr(pipe, name, None) is None for name in DECODERS):
        order = 2 if steps is not None and steps < FEW else 3
        return {"solver": "unipc", "solver_order": order, "grid": "optimized", "error_power": 1.0}
    return {"solver": "unipc", "solver_order": 2, "grid": "optimized", "error_power": 2.0}

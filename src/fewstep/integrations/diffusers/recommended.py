"""The recommended settings of a pipeline."""

from __future__ import annotations

import warnings
from typing import Any

from diffusers import DiffusionPipeline, SchedulerMixin

from fewstep import recommended as rule
from fewstep.integrations.diffusers.formulation import EDMFormulation, FlowFormulation
from fewstep.integrations.diffusers.origin import config_of
from fewstep.integrations.diffusers.scheduler import FewStepScheduler
from fewstep.processes.spec import parse

__all__ = ["recommended"]

DECODERS = ("vae", "vqvae", "movq", "vqgan")
"""The names of decoders, one of which a pipeline over latents has."""


def recommended(scheduler: SchedulerMixin, pipe: DiffusionPipeline, steps: int | None = None) -> dict[str, Any]:
    """Return the settings for a pipeline whose given scheduler is ``scheduler``, as ``fewstep.recommended`` has them.

    A flow or an EDM network keeps the levels that the pipeline brings ("simple"): even before the pipeline's own shift,
    or Karras et al.'s, which is what the rule says of them, with the pipeline's ends. A ``FewStepScheduler`` keeps its
    settings.
    """
    if isinstance(scheduler, FewStepScheduler):
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        formulation = FewStepScheduler.from_config(config_of(scheduler)).formulation
    latent = any(getattr(pipe, name, None) is not None for name in DECODERS)
    choice = rule.recommended(formulation.process, steps, latent=latent)
    solver, of_solver = parse(choice.solver)
    settings = {"solver": solver, "solver_order": of_solver["order"]}
    if isinstance(formulation, (EDMFormulation, FlowFormulation)):
        return {**settings, "grid": "simple"}
    grid, of_grid = parse(choice.grid)
    if grid == "optimized":
        return {**settings, "grid": grid, "error_power": float(of_grid.get("error_power", 1.0))}
    return {**settings, "grid": choice.grid}

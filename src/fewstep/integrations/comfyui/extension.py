"""The ComfyUI extension: the nodes, and fewstep's grids and solvers in KSampler's lists."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import comfy.k_diffusion.sampling
import comfy.samplers
import folder_paths
from comfy_api.latest import ComfyExtension, io
from torch import Tensor

from fewstep import grids, solvers
from fewstep.integrations.comfyui.grid import FewstepGrid, sigmas_of_grid
from fewstep.integrations.comfyui.recipe import FOLDER, FewstepRecipe
from fewstep.integrations.comfyui.sampler import Choice, sample
from fewstep.integrations.comfyui.sampler_node import FewstepSampler
from fewstep.integrations.comfyui.skip_tuning import FewstepSkipTuning

__all__ = ["NODES", "FewstepExtension", "entrypoint"]

NODES: tuple[type[io.ComfyNode], ...] = (FewstepSampler, FewstepGrid, FewstepRecipe, FewstepSkipTuning)
PREFIX = "fewstep_"
"""Prefix of our names in KSampler's lists."""


class FewstepExtension(ComfyExtension):
    """The nodes of fewstep."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the nodes."""
        return list(NODES)


def entrypoint() -> FewstepExtension:
    """Return the extension; the folder of recipes, our grids and our solvers are made known to ComfyUI, once."""
    recipes = os.path.join(folder_paths.models_dir, FOLDER)
    folder_paths.folder_names_and_paths.setdefault(FOLDER, ([recipes], {".json"}))
    for grid in grids.NAMES:
        if PREFIX + grid not in comfy.samplers.SCHEDULER_HANDLERS:
            comfy.samplers.SCHEDULER_HANDLERS[PREFIX + grid] = comfy.samplers.SchedulerHandler(partial(_sigmas, grid))
            comfy.samplers.SCHEDULER_NAMES.append(PREFIX + grid)
    for solver in solvers.NAMES:
        if PREFIX + solver not in comfy.samplers.SAMPLER_NAMES:
            chosen = partial(sample, plan=Choice(solver=solver, window=(0.2, 0.8)).plan)
            setattr(comfy.k_diffusion.sampling, f"sample_{PREFIX}{solver}", chosen)
            comfy.samplers.KSAMPLER_NAMES.append(PREFIX + solver)
            comfy.samplers.SAMPLER_NAMES.append(PREFIX + solver)
    return FewstepExtension()


def _sigmas(grid: str, sampling: Any, steps: int) -> Tensor:
    return sigmas_of_grid(sampling, grid, steps, Choice())

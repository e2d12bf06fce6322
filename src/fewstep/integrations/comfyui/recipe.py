"""The recipe node: a calibrated plan in the coordinates of a ComfyUI model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_sampling
import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from fewstep.errors import InputError
from fewstep.integrations import kdiffusion
from fewstep.integrations.comfyui.levels import is_flow
from fewstep.integrations.comfyui.sampler import sampler
from fewstep.plan import Plan
from fewstep.processes import RectifiedFlow, VPDiscrete
from fewstep.recipe import load_recipe

__all__ = ["FOLDER", "FewstepRecipe", "Fitted", "load"]

FOLDER = "fewstep"
"""The folder of recipes in ComfyUI's folder of models."""
APART = 1e-3
"""Relative tolerance between noise levels of the same schedule: models keep them in float32."""


@dataclass(frozen=True)
class Fitted:
    """A recipe's plan for a model's states, and its SIGMAS, float32 [N + 1]."""

    plan: Plan
    sigmas: Tensor

    def on(self, sampling: Any, sigmas: Tensor) -> Plan:
        """Return the plan, if the SIGMAS belong to it.

        Raises:
            InputError: if they are others, or a part of them.
        """
        if sigmas.shape != self.sigmas.shape or not torch.equal(sigmas.cpu().float(), self.sigmas):
            raise InputError(
                f"the recipe's sampler belongs to its own {len(self.sigmas) - 1} steps and was given {len(sigmas) - 1} "
                "others: connect both outputs of fewstep Recipe to one SamplerCustom, with no node between."
            )
        return self.plan


def load(path: Path, sampling: Any, calls: int | None = None) -> Fitted:
    """Return the recipe in a file, of a book that of so many network calls, for a model of these levels.

    Raises:
        InputError: if the file is no recipe, a book without that one, or of another process.
    """
    plan = load_recipe(path, calls).plan
    _check_process(plan, sampling)
    moved = kdiffusion.in_sigma(plan)
    return Fitted(moved, kdiffusion.sigmas_of(moved).float())


def _check_process(plan: Plan, sampling: Any) -> None:
    process, advice = plan.process, "calibrate one for this model."
    if isinstance(process, RectifiedFlow) != is_flow(sampling):
        kind = "a flow" if is_flow(sampling) else "no flow"
        raise InputError(f"the recipe is of {process!r}, and the model is {kind}: {advice}")
    if is_flow(sampling):
        return
    lowest, highest = float(sampling.sigma_min), float(sampling.sigma_max)
    if isinstance(process, VPDiscrete) and isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete):
        ours = ((1.0 - process.alphas_cumprod) / process.alphas_cumprod).sqrt()
        theirs = sampling.sigmas.detach().cpu().double()
        if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=APART, atol=0.0):
            raise InputError(
                f"the recipe is of {len(ours)} levels, σ/α from {float(ours[0]):.4g} to {float(ours[-1]):.4g}, and the "
                f"model has {len(theirs)} from {lowest:.4g} to {highest:.4g}: {advice}"
            )
        return
    sigmas = kdiffusion.sigmas_of(plan)
    first, last = float(sigmas[0]), float(sigmas[sigmas > 0].min())
    if first > highest * (1.0 + APART) or last < lowest * (1.0 - APART):
        raise InputError(
            f"the recipe's noise levels go from {first:.4g} to {last:.4g}, the model's from {highest:.4g} to "
            f"{lowest:.4g}: {advice}"
        )


class FewstepRecipe(io.ComfyNode):
    """SAMPLER and SIGMAS of a recipe."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return inputs and outputs."""
        return io.Schema(
            node_id="FewstepRecipe",
            display_name="fewstep Recipe",
            category="sampling/fewstep",
            description="A sampler and its noise levels from a recipe: a JSON file that `fewstep calibrate` "
            "wrote for this model, in ComfyUI's folder models/fewstep. Connect both outputs to the same SamplerCustom.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the recipe was made for."),
                io.Combo.Input(
                    "recipe",
                    options=folder_paths.get_filename_list(FOLDER),
                    tooltip="A JSON file in models/fewstep. Press R to see one that was put there just now.",
                ),
                io.Int.Input(
                    "calls",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Of a book of recipes: which one, by its network calls. Of a single recipe leave it at 0.",
                ),
                io.Int.Input(
                    "step_seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    tooltip="For recipes that add noise: another number, another noise of the steps.",
                ),
            ],
            outputs=[io.Sampler.Output(), io.Sigmas.Output()],
        )

    @classmethod
    def execute(cls, model: Any, recipe: str, calls: int, step_seed: int) -> io.NodeOutput:
        """Return SAMPLER and SIGMAS."""
        fitted = load(_path(recipe), model.get_model_object("model_sampling"), calls or None)
        return io.NodeOutput(sampler(fitted.on, step_seed=step_seed), fitted.sigmas)

    @classmethod
    def fingerprint_inputs(cls, recipe: str, **others: Any) -> str:
        """Return the file's text, so that a recipe written anew is read anew."""
        return _path(recipe).read_text("utf-8")


def _path(recipe: str) -> Path:
    path = folder_paths.get_full_path(FOLDER, recipe)
    if path is None:
        raise InputError(f"there is no recipe {recipe!r}: put it into {folder_paths.get_folder_paths(FOLDER)[0]}.")
    return Path(path)

"""The Skip-Tuning node: the skips of a UNet scaled in a clone of a ComfyUI model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from fewstep.errors import InputError
from fewstep.integrations.comfyui.levels import is_flow, ratio_at
from fewstep.skip.noise_level import EDGE
from fewstep.skip.profile import Profile

__all__ = ["FewstepSkipTuning", "tuned"]


def tuned(model: Any, profile: Profile) -> Any:
    """Return a clone of a MODEL whose skips are scaled as ``fs.skip.tuned`` scales them; the model stays as it was.

    Raises:
        InputError: if the model has no skips, as Flux and SD3 have none.
    """
    blocks = getattr(model.get_model_object("diffusion_model"), "output_blocks", ())
    if not len(blocks):
        raise InputError(
            f"a model of the kind {type(model.model).__name__} has no skip connections into its decoder, so there is "
            "nothing to tune: Skip-Tuning is for UNets, such as those of SD 1.5 and SDXL."
        )
    clone = model.clone()
    flow = is_flow(model.get_model_object("model_sampling"))
    clone.set_model_output_block_patch(_patch(profile, profile.factors(len(blocks)), flow))
    return clone


def _patch(profile: Profile, factors: list[float], flow: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return the patch (hidden, skip, options) → (hidden, skip); output block 0 takes the deepest skip in."""
    low, high = profile.sigma_window or (None, None)

    def scale(hidden: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        rho = factors[options["block"][1]]
        if rho == 1.0:
            return hidden, skip
        if profile.sigma_window is None:
            return hidden, skip * rho
        sigma = options["sigmas"].flatten()[0].double()
        ratio = sigma / (1.0 - sigma) if flow else sigma
        inside = torch.ones_like(ratio, dtype=torch.bool)
        if low is not None:
            inside = inside & (ratio >= low * (1.0 - EDGE))  # fs.skip.tuned has the same tolerance.
        if high is not None:
            inside = inside & (ratio <= high * (1.0 + EDGE))
        return hidden, torch.where(inside, skip * rho, skip)

    return scale


class FewstepSkipTuning(io.ComfyNode):
    """A MODEL with its skips scaled."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return inputs and outputs."""
        factor, percent = {"min": 0.0, "max": 2.0, "step": 0.01}, {"min": 0.0, "max": 1.0, "step": 0.01}
        return io.Schema(
            node_id="FewstepSkipTuning",
            display_name="fewstep Skip-Tuning",
            category="sampling/fewstep",
            description="Scales the skip connections of a UNet (SD 1.5, SDXL), which makes up for few steps at no "
            "cost. The fewer the steps, the smaller the factor of the deepest skip: 0.7 at 9, 0.78 at 15, 0.85 at 39 "
            "steps in its paper.",
            inputs=[
                io.Model.Input("model"),
                io.Float.Input(
                    "bottom", default=0.8, tooltip="The factor of the deepest skip; 1 changes nothing.", **factor
                ),
                io.Float.Input(
                    "top",
                    default=1.0,
                    tooltip="The factor of the outermost skip; those between lie on a line.",
                    **factor,
                ),
                io.Float.Input(
                    "start",
                    default=0.0,
                    tooltip="Where the scaling begins, in percent of the process: 0 is the first step.",
                    **percent,
                ),
                io.Float.Input(
                    "end",
                    default=1.0,
                    tooltip="Where the scaling ceases, in percent of the process: 1 is the last step.",
                    **percent,
                ),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, bottom: float, top: float, start: float, end: float) -> io.NodeOutput:
        """Return a clone of the model, patched."""
        window = None
        if (start, end) != (0.0, 1.0):
            if not start < end:
                raise InputError(
                    f"the scaling goes from {start:g} to {end:g} of the process: give a start below the end."
                )
            sampling = model.get_model_object("model_sampling")
            window = (ratio_at(sampling, end), ratio_at(sampling, start))
        return io.NodeOutput(tuned(model, Profile(bottom, top, sigma_window=window)))

"""The grid node: our grids as ComfyUI's SIGMAS."""

from __future__ import annotations

from functools import partial
from typing import Any

import comfy.model_base
import torch
from comfy_api.latest import io

from fewstep import grids
from fewstep.errors import InputError
from fewstep.integrations.comfyui.levels import sigmas_between
from fewstep.integrations.comfyui.sampler import Choice, choice_of
from fewstep.processes.spec import parse
from fewstep.recommended import optimized_for

__all__ = ["FewstepGrid", "sigmas_of_grid"]


def sigmas_of_grid(
    sampling: Any,
    grid: str,
    steps: int,
    choice: Choice,
    *,
    error_power: float = 0.0,
    video: bool = False,
    start: float = 0.0,
    end: float = 1.0,
) -> torch.Tensor:
    """Return SIGMAS, float32 [steps + 1], of a grid by name, between two percentages of the sampling process.

    "optimized" is what ``fs.enable`` takes on latents, or with an ``error_power`` the published bound's.
    """
    make: Any = partial(grids.NAMES[grid], steps=steps)
    if grid == "optimized":
        settings = {"error_power": error_power} if error_power else parse(optimized_for(latent=True, video=video))[1]
        make = partial(make, solver=choice.solver_for(sampling), **settings)
    return sigmas_between(sampling, make, start=start, end=end)


def _is_video(model: Any) -> bool:
    """Whether a MODEL's latents are of frames: those of an autoencoder in time, or Stable Video Diffusion's."""
    frames = model.model.latent_format.latent_dimensions == 3
    return frames or isinstance(model.model, comfy.model_base.SVD_img2vid)


class FewstepGrid(io.ComfyNode):
    """SIGMAS of one of our grids."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return inputs and outputs."""
        percent = {"min": 0.0, "max": 1.0, "step": 0.01}
        return io.Schema(
            node_id="FewstepGrid",
            display_name="fewstep Grid",
            category="sampling/fewstep",
            description="The noise levels of the steps (SIGMAS). optimized places them where the connected "
            "sampler errs least on data with the spectrum of latents; it takes a few milliseconds.",
            inputs=[
                io.Model.Input("model", tooltip="The model whose levels these are; patches of its sampling count."),
                io.Combo.Input(
                    "grid",
                    options=sorted(grids.NAMES),
                    default="optimized",
                    tooltip="optimized: for the sampler. uniform_logsnr: even in log σ. uniform_time: even in the "
                    "model's time. quadratic_time: denser near the image. early_end: even in log σ, with a long last "
                    "step. karras: Karras et al.",
                ),
                io.Int.Input("steps", default=8, min=1, max=1000, tooltip="The number of steps."),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    tooltip="Below 1 for image-to-image: all steps are spent on this last share of the process.",
                    **percent,
                ),
                io.Float.Input(
                    "start",
                    default=0.0,
                    tooltip="Where the steps begin, in percent of the process: 0 is the highest noise level.",
                    **percent,
                ),
                io.Float.Input(
                    "end",
                    default=1.0,
                    tooltip="Where the steps end, in percent of the process: 1 is the image, less ends a first stage.",
                    **percent,
                ),
                io.Sampler.Input(
                    "sampler",
                    optional=True,
                    tooltip="For optimized: the fewstep Sampler that will run on it. Without one: unipc of order 2.",
                ),
                io.Float.Input(
                    "error_power",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    optional=True,
                    tooltip="For optimized: above 0, the published error bound is minimised, with this power of σ: 2 "
                    "for models in latent space, 1 in pixel space.",
                ),
            ],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        grid: str,
        steps: int,
        denoise: float,
        start: float,
        end: float,
        sampler: Any = None,
        error_power: float = 0.0,
    ) -> io.NodeOutput:
        """Return the SIGMAS; none for a ``denoise`` of 0."""
        if denoise <= 0:
            return io.NodeOutput(torch.zeros(0))
        choice = Choice() if sampler is None else choice_of(sampler)
        if choice is None:
            raise InputError(
                "the sampler of fewstep Grid was not made by a fewstep Sampler: connect one, or leave the input open."
            )
        sigmas = sigmas_of_grid(
            model.get_model_object("model_sampling"),
            grid,
            steps,
            choice,
            error_power=error_power,
            video=_is_video(model),
            start=max(start, 1.0 - denoise),
            end=end,
        )
        return io.NodeOutput(sigmas)

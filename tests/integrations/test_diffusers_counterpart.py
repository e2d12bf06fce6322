"""A pipeline's own sampler as a plan: the same samples as the pipeline's loop makes."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from diffusers import schedulers
from support import tiny_pipelines as tiny

import fewstep as fs
from fewstep.errors import InputError
from fewstep.integrations.diffusers.counterpart import counterpart
from fewstep.models import from_pipeline

STEPS = 4
CASES = {
    "Flux, Euler": (tiny.flux, None, {}),
    "SD 3, Euler": (tiny.stable_diffusion_3, None, {}),
    "SDXL, Euler": (tiny.stable_diffusion_xl, None, {}),
    "SDXL, DDIM": (
        tiny.stable_diffusion_xl,
        schedulers.DDIMScheduler,
        {"set_alpha_to_one": True, "clip_sample": False},
    ),
    "SDXL, DPM++ 2M": (tiny.stable_diffusion_xl, schedulers.DPMSolverMultistepScheduler, {}),
    "SDXL, UniPC": (tiny.stable_diffusion_xl, schedulers.UniPCMultistepScheduler, {}),
}


def recorded(pipe, call, latents):
    """What the last step of the pipeline's own loop returns."""
    pipe = copy.copy(pipe)
    scheduler, made = copy.deepcopy(pipe.scheduler), []
    step = scheduler.step

    @functools.wraps(step)
    def kept(*args, **kwargs):
        out = step(*args, **kwargs)
        made.append(out[0])
        return out

    scheduler.step = kept
    vars(pipe)["scheduler"] = scheduler
    pipe.set_progress_bar_config(disable=True)
    pipe(**call, num_inference_steps=STEPS, latents=latents, output_type="latent")
    return made[-1]


@pytest.mark.parametrize("case", CASES)
def test_it_is_what_the_pipeline_runs(case):
    make, scheduler, settings = CASES[case]
    pipe, call = make()
    if scheduler is not None:
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **settings)
    model = from_pipeline(pipe, **call)
    name, plan = model.default(STEPS)
    assert name == type(pipe.scheduler).__name__ and plan.nfe == STEPS
    x_T = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(5)) * float(plan.grid.sigma[0])
    theirs = recorded(pipe, call, model.layout.latents_of(x_T))
    ours = fs.execute(plan, model, x_T)
    scale = float(theirs.abs().max())
    torch.testing.assert_close(ours / scale, theirs.reshape(ours.shape) / scale, rtol=0, atol=2e-3)


def test_what_has_none():
    with pytest.raises(InputError, match="LCMScheduler has no counterpart among fewstep's solvers"):
        counterpart({"_class_name": "LCMScheduler"})

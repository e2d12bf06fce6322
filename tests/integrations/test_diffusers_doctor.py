"""The doctor: the schedule that a pipeline really runs, and each fault by a pipeline that has it."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from diffusers import schedulers
from support import tiny_pipelines as tiny
from support import tiny_transformer_pipelines as newer

import fewstep as fs
from fewstep.errors import InputError
from fewstep.integrations.diffusers.likeness import Likeness
from fewstep.storage import json_text

FLOW = schedulers.FlowMatchEulerDiscreteScheduler


def faults(make, steps=8, scheduler=None, **more):
    pipe, call = make()
    if scheduler is not None:
        pipe.scheduler = scheduler
    return {finding.name for finding in fs.doctor(pipe, steps, **{**call, **more}).findings}


@pytest.mark.parametrize("make", [*tiny.TEXT_TO_IMAGE], ids=lambda make: make.__name__)
@pytest.mark.parametrize("steps", [5, None])
def test_it_tells_what_the_pipeline_runs(make, steps):
    pipe, call = make()
    found = fs.doctor(pipe, steps, **call)
    fed = []
    network = getattr(pipe, "transformer", None) or pipe.unet
    names = "timestep", "t"
    network.register_forward_pre_hook(
        lambda _, args, kwargs: fed.append(next((kwargs[n] for n in names if n in kwargs), args[1:2])), with_kwargs=True
    )
    if steps is not None:
        tiny.run(pipe, call, steps=steps)
        values = [float(torch.as_tensor(value[0] if isinstance(value, tuple) else value).flatten()[0]) for value in fed]
        scale = 1000.0 if values[0] <= 1.0 else 1.0  # Flux feeds t/1000.
        calls = [step.timestep for step in found.steps]
        np.testing.assert_allclose(
            [scale * value for value in dict.fromkeys(values)], list(dict.fromkeys(calls)), rtol=1e-5
        )
        fs.enable(pipe, steps=steps)
        tiny.run(pipe, call, steps=steps)
        np.testing.assert_allclose([step.timestep for step in found.own], pipe.scheduler.timesteps.double(), rtol=1e-6)
    assert str(found).count("\n") >= len(found.steps) + 1
    assert all(a.half_logsnr <= b.half_logsnr for a, b in zip(found.steps, found.steps[1:], strict=False))


def gaussian(power):
    """D of Gaussian data of spectrum (1 + (k/1.5)²)^−power, k cycles a picture: (x_t, α, σ) → D."""
    k = torch.fft.fftfreq(32, 1 / 32, dtype=torch.float64)
    variance = (1 + (k[:, None] ** 2 + k[None] ** 2) / 1.5**2) ** -power

    def predicted(x, alpha, sigma):
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        return torch.fft.ifft2(torch.fft.fft2(x.double()) * gain).real.to(x)

    return predicted


@pytest.mark.parametrize("says", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("right", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("data", [None, gaussian(1.0), gaussian(2.5)], ids=["trained", "rough", "smooth"])
def test_what_a_network_predicts_is_measured(data, says, right):
    """Of a trained network of v, or the exact one of Gaussian data, with its output turned into what is right."""
    network = fs.zoo.load("fashion-mnist").network
    pipe = diffusers.DDIMPipeline(network, schedulers.DDIMScheduler(prediction_type=says))
    pipe.set_progress_bar_config(disable=True)
    network.register_forward_pre_hook(
        lambda _, args, kwargs: (args, {**kwargs, "class_labels": torch.tensor([10])}), with_kwargs=True
    )

    def turned(_, args, output):
        alpha = pipe.scheduler.alphas_cumprod[int(args[1])].double() ** 0.5
        sigma, x = (1 - alpha**2) ** 0.5, args[0]
        x_0 = alpha * x - sigma * output.sample if data is None else data(x, alpha, sigma)
        made = {"epsilon": (x - alpha * x_0) / sigma, "v_prediction": (alpha * x - x_0) / sigma, "sample": x_0}
        return type(output)(made[right].to(x))

    network.register_forward_hook(turned)
    found = [one for one in fs.doctor(pipe, 4, measure=True).findings if one.name == "prediction"]
    assert bool(found) == (says != right)
    assert all(f"Set prediction_type to {right!r}" in str(one) for one in found)
    assert not any(one.name == "prediction" for one in fs.doctor(pipe, 4).findings)


def test_a_pipeline_that_begins_with_an_image_is_measured_from_pure_noise():
    pipe, call = tiny.stable_diffusion_image()
    (found,) = (one for one in fs.doctor(pipe, 4, measure=True, **call).findings if one.name == "prediction")
    assert "at the noisiest step it holds 0." in str(found) or "it holds -0." in str(found)


@pytest.mark.parametrize(("ratio", "low"), [(0.0, 0.0), (0.01, 0.5), (1.0, 1 / 1.01)])
def test_the_part_of_the_noise_in_predictions_is_the_one_of_gaussian_data(ratio, low):
    """For white data of variance s², κ of x_0 is α·s²/(α²s² + σ²); v's is (α − κ)/σ, nothing at s = 1."""
    alpha = 1 / 1.01**0.5
    sigma = 0.1 * alpha
    of_x_0 = alpha * ratio / (alpha**2 * ratio + sigma**2)
    assert alpha * of_x_0 == pytest.approx(low)
    of_v = (alpha - of_x_0) / sigma
    assert Likeness(0.0, of_x_0).prediction == "sample"
    assert (Likeness(0.0, of_v).prediction == "v_prediction") == (ratio < 0.04)


def test_a_sound_pipeline_has_no_faults():
    assert faults(tiny.flux) == set() and faults(tiny.wan) == set() and faults(tiny.stable_diffusion_3) == set()


def test_a_shift_that_is_applied_twice():
    even = np.linspace(1.0, 1 / 8, 8)
    shifted = 3 * even / (1 + 2 * even)
    assert "shifted-twice" in faults(tiny.flux, None, sigmas=shifted.tolist())
    assert faults(tiny.flux, None, sigmas=even.tolist()) == set()


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_shift_for_the_resolution_that_is_not_applied(shift):
    """Never (1), or a fixed one, whatever the size."""
    found = fs.doctor(*_with(tiny.flux, FLOW(shift=shift, use_dynamic_shifting=False)))
    assert {finding.name for finding in found.findings} == {"shift-ignored"} and found.mu is not None
    assert ("applies none" in str(found)) == (shift == 1.0)


def _with(make, scheduler):
    pipe, call = make()
    pipe.scheduler = scheduler
    return _Called(pipe, call), 8


class _Called(diffusers.DiffusionPipeline):
    """A pipeline with its call's arguments."""

    def __new__(cls, pipe, call):
        base = type(pipe)
        kind = type(base.__name__, (base,), {"__call__": lambda self, *, num_inference_steps=8: base.__call__(
            self, num_inference_steps=num_inference_steps, **call)})  # fmt: skip
        pipe.__class__ = kind
        return pipe


def test_noise_that_stays_and_a_wasted_step():
    sd = dict(tiny.SD_SCHEDULER)
    ends = schedulers.DPMSolverMultistepScheduler(**sd, final_sigmas_type="sigma_min")
    assert "noise-stays" in faults(tiny.stable_diffusion, scheduler=ends)
    del sd["steps_offset"]
    wasted = schedulers.SASolverScheduler(**sd, use_karras_sigmas=True)
    assert "step-wasted" in faults(tiny.stable_diffusion, scheduler=wasted)


@pytest.mark.parametrize(("spacing", "late"), [("leading", True), ("trailing", False)])
def test_zero_terminal_snr_needs_trailing_steps(spacing, late):
    scheduler = schedulers.DDIMScheduler(
        **tiny.SD_SCHEDULER, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing=spacing
    )
    assert ("first-step-late" in faults(tiny.stable_diffusion, scheduler=scheduler)) == late


def test_timesteps_that_were_rounded_or_repeat():
    karras = schedulers.DPMSolverMultistepScheduler(**tiny.SD_SCHEDULER, use_karras_sigmas=True)
    assert "timesteps-rounded" in faults(tiny.stable_diffusion, scheduler=karras)
    ours = fs.integrations.diffusers.FewStepScheduler.from_config(karras.config)
    assert "timesteps-rounded" not in faults(tiny.stable_diffusion, scheduler=ours)
    assert "timesteps-repeat" in faults(tiny.stable_diffusion, 60, scheduler=karras)


def test_karras_levels_on_a_flow():
    assert "karras-on-a-flow" in faults(tiny.wan, scheduler=FLOW(shift=7.0, use_karras_sigmas=True))


def test_a_distilled_adapter_on_an_undistilled_schedule():
    from peft import LoraConfig

    pipe, call = tiny.stable_diffusion()
    pipe.unet.add_adapter(LoraConfig(r=1, target_modules=["to_q"]), "sdxl_lightning_8step")
    found = fs.doctor(pipe, 8, **call, guidance_scale=7.5)
    assert {"distilled-schedule", "guidance-doubled"} <= {finding.name for finding in found.findings}
    trailing = schedulers.EulerDiscreteScheduler(**{**tiny.SD_SCHEDULER, "timestep_spacing": "trailing"})
    pipe.scheduler = trailing
    assert "distilled-schedule" not in {finding.name for finding in fs.doctor(pipe, 8, **call).findings}


def test_guidance_on_a_network_that_takes_it_as_an_input():
    pipe, call = tiny.flux()
    pipe.transformer.register_to_config(guidance_embeds=True)
    negative = {
        "negative_prompt_embeds": call["prompt_embeds"],
        "negative_pooled_prompt_embeds": call["pooled_prompt_embeds"],
    }
    found = fs.doctor(pipe, 4, **call, **negative, true_cfg_scale=3.0)
    assert {finding.name for finding in found.findings} == {"guidance-doubled"}


def test_a_flow_under_a_scheduler_of_diffusion():
    assert "prediction" in faults(tiny.wan, scheduler=schedulers.UniPCMultistepScheduler())


def test_nothing_is_changed_and_no_network_is_called():
    pipe, call = tiny.stable_diffusion()
    pipe.unet.forward = None
    before, scheduler = dict(vars(pipe)), dict(vars(pipe.scheduler))
    fs.doctor(pipe, 4, **call)
    assert vars(pipe) == before and vars(pipe.scheduler).keys() == scheduler.keys()
    assert pipe.scheduler.num_inference_steps == scheduler["num_inference_steps"]


def test_mistakes():
    pipe, call = tiny.stable_diffusion()
    with pytest.raises(InputError, match="pipe is int"):
        fs.doctor(3)
    with pytest.raises(InputError, match="does not get to its first step: .*divisible by 8"):
        fs.doctor(pipe, 4, **{**call, "height": 17})
    with pytest.raises(InputError, match="steps is 0: give a whole number of at least 1"):
        fs.doctor(pipe, 0, **call)
    pipe, _ = tiny.dit()
    with pytest.raises(InputError, match="'class_labels'; what its call needs is given as fs.doctor"):
        fs.doctor(pipe, 4)


@pytest.mark.parametrize("steps", [2, 8])
def test_the_calls_of_two_experts(steps):
    pipe, call = newer.wan_22()
    found = fs.doctor(pipe, steps, **call)
    called = dict.fromkeys(("transformer", "transformer_2"), 0)
    for name in called:
        getattr(pipe, name).register_forward_pre_hook(lambda *_, name=name: called.update({name: called[name] + 1}))
    tiny.run(pipe, call, steps=steps, output_type="latent")
    assert {name: 2 * count for name, count in found.experts.items()} == called  # Each twice, for guidance.
    assert f"experts: {found.experts['transformer']} of transformer" in str(found)
    assert fs.doctor(*tiny.wan()[:1], steps, **tiny.wan()[1]).experts is None


def test_an_expert_that_is_never_called():
    pipe, call = newer.wan_22()
    pipe.register_to_config(boundary_ratio=0.001)
    assert {finding.name for finding in fs.doctor(pipe, 4, **call).findings} == {"expert-unused"}


def test_its_json_has_no_infinity():
    """A flow begins at pure noise, where σ/α is infinite."""
    found = fs.doctor(*_with(tiny.flux, FLOW(shift=3.0, use_dynamic_shifting=False)))
    first = found.to_dict()["steps"][0]
    assert found.steps[0].ratio == float("inf") and first["ratio"] is None and first["half_logsnr"] is None
    json_text(found.to_dict())

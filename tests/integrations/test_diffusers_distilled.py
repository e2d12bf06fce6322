"""Skip-Tuning of distilled pipelines, which keep their own scheduler."""

from __future__ import annotations

import math

import diffusers
import pytest
import torch
from diffusers import schedulers
from support import tiny_pipelines as tiny

import fewstep as fs
from fewstep.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def consistency_model():
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )
    return diffusers.ConsistencyModelPipeline(network, schedulers.CMStochasticIterativeScheduler()), {}


def latent_consistency_model():
    plain, call = tiny.stable_diffusion()
    torch.manual_seed(1)
    parts = {**plain.components, "unet": tiny.unet(time_cond_proj_dim=8), "scheduler": schedulers.LCMScheduler()}
    pipe = diffusers.LatentConsistencyModelPipeline(**parts, requires_safety_checker=False)
    return pipe, {key: value for key, value in call.items() if not key.startswith("negative")}


def turbo():
    pipe, call = tiny.stable_diffusion()
    pipe.scheduler = schedulers.EulerAncestralDiscreteScheduler(timestep_spacing="trailing")
    return pipe, {**call, "guidance_scale": 0.0}


def lightning():
    pipe, call = tiny.stable_diffusion_xl()
    pipe.scheduler = schedulers.EulerDiscreteScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    return pipe, {**call, "guidance_scale": 0.0}


MAKERS = [consistency_model, latent_consistency_model, turbo, lightning]


def scale_by_hand(unet, bottom):
    """Multiply what each upward block is given as skips, the last entry the first used, by ρ rising linearly to 1."""
    counts = [len(block.resnets) for block in unet.up_blocks]
    rhos = iter([bottom + (1 - bottom) * i / (sum(counts) - 1) for i in range(sum(counts))])
    for block, count in zip(unet.up_blocks, counts, strict=True):
        scaled = [next(rhos) for _ in range(count)][::-1]

        def forward(*args, scaled=scaled, own=block.forward, **kwargs):
            skips = kwargs["res_hidden_states_tuple"] if "res_hidden_states_tuple" in kwargs else args[1]
            skips = tuple(rho * skip for rho, skip in zip(scaled, skips, strict=True))
            if "res_hidden_states_tuple" in kwargs:
                return own(*args, **{**kwargs, "res_hidden_states_tuple": skips})
            return own(args[0], skips, *args[2:], **kwargs)

        block.forward = forward


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_the_network_is_tuned_and_the_scheduler_stays(make, steps):
    pipe, call = make()
    scheduler, config, kind = pipe.scheduler, dict(pipe.scheduler.config), type(pipe)
    plain = tiny.run(pipe, call, steps)
    assert fs.enable(pipe, skip=0.5) is pipe
    assert pipe.scheduler is scheduler and dict(scheduler.config) == config
    tuned = tiny.run(pipe, call, steps)
    summary = fs.summary(pipe)
    assert summary.calls == {"unet": steps} and summary.steps == steps and summary.skip
    assert f"own scheduler, {type(scheduler).__name__}" in str(summary)
    fs.disable(pipe)
    assert pipe.scheduler is scheduler and type(pipe) is kind
    assert torch.equal(tiny.run(pipe, call, steps), plain)
    with fs.skip.tuned(pipe.unet, 0.5):
        assert torch.equal(tiny.run(pipe, call, steps), tuned)
    by_hand, call = make()
    scale_by_hand(by_hand.unet, 0.5)
    assert torch.equal(tiny.run(by_hand, call, steps), tuned)
    assert not torch.equal(tuned, plain)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_window_reads_what_its_scheduler_feeds(make):
    """A window around the first of two noise levels scales the first call fully and leaves the second alone."""
    pipe, call = make()
    calls = []
    hook = pipe.unet.register_forward_pre_hook(lambda _, *given: calls.append(given), with_kwargs=True)
    tiny.run(pipe, call, steps=2)
    hook.remove()
    first, second = (float(t) for t in pipe.scheduler.timesteps)
    if make is consistency_model:
        high, low = (math.exp(t / 250) for t in (first, second))
    else:
        bar = pipe.scheduler.alphas_cumprod.double()
        high, low = (math.sqrt(1 / bar[round(t)] - 1) for t in (first, second))

    @torch.no_grad()
    def outputs():
        return [pipe.unet(*args, **kwargs)[0] for args, kwargs in calls]

    plain = outputs()
    with fs.skip.tuned(pipe.unet, rho=0.5):
        scaled = outputs()
    fs.enable(pipe, skip=fs.skip.Profile(rho=0.5, sigma_window=(math.sqrt(high * low), None)))
    windowed = outputs()
    assert not torch.equal(plain[1], scaled[1])
    torch.testing.assert_close(windowed[0], scaled[0])
    assert torch.equal(windowed[1], plain[1])


def test_other_settings_after_it_replace_the_scheduler_and_back():
    pipe, call = turbo()
    scheduler = pipe.scheduler
    fs.enable(pipe, steps=2, skip=0.5)
    assert pipe.scheduler is not scheduler
    fs.enable(pipe, skip=0.5)
    assert pipe.scheduler is scheduler
    fs.enable(pipe, skip=0.9)
    assert "no call yet" in str(fs.summary(pipe))
    assert fs.disable(pipe).scheduler is scheduler and not pipe.unet._forward_pre_hooks


def test_a_window_with_an_unknown_scheduler_is_refused():
    pipe, _ = turbo()
    pipe.scheduler = scheduler = schedulers.VQDiffusionScheduler(num_vec_classes=8)
    with pytest.raises(InputError, match="what VQDiffusionScheduler feeds"):
        fs.enable(pipe, skip=fs.skip.Profile(0.5, sigma_window=(0.1, 1.0)))
    assert pipe.scheduler is scheduler

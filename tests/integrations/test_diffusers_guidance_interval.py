"""Guidance of real pipelines in an interval of noise levels."""

from __future__ import annotations

import copy

import diffusers
import pytest
import torch
from support import tiny_pipelines as tiny
from support import tiny_transformer_pipelines as transformers

import fewstep as fs
from fewstep.errors import InputError
from fewstep.integrations.diffusers.guidance_interval import _Half

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
STEPS = 4
BATCHED = [
    tiny.stable_diffusion,
    tiny.stable_diffusion_v,
    tiny.stable_diffusion_xl,
    tiny.controlnet,
    tiny.dit,
    tiny.pixart,
    tiny.stable_diffusion_3,
    transformers.sana,
    transformers.z_image,
    transformers.cogvideox,
    transformers.mochi,
    transformers.ltx,
    transformers.audioldm_2,
]
TWICE = [tiny.wan, transformers.wan_22, transformers.qwen_image, transformers.lumina_2]
FAR = (1e6, 2e6)
LATENT = {"steps": STEPS, "output_type": "latent"}


def scale_name(call):
    return "true_cfg_scale" if "true_cfg_scale" in call else "guidance_scale"


def rows_of(pipe):
    """Return a list that gets the number of samples in each network call."""
    rows: list[int] = []
    for name in ("unet", "transformer", "transformer_2"):
        network = getattr(pipe, name, None)
        if network is not None:
            network.register_forward_pre_hook(
                lambda module, args, kwargs: rows.append(len(args[0] if args else next(iter(kwargs.values())))),
                with_kwargs=True,
            )
    return rows


def enabled(make, interval=None, scale=3.0, **more):
    pipe, call = make()
    fs.enable(pipe, steps=STEPS, solver="unipc:order=2", guidance_interval=interval)
    rows = rows_of(pipe)
    return tiny.run(pipe, {**call, scale_name(call): scale, **more}, steps=STEPS), rows, pipe


def middle(pipe):
    """Return a level between those of the second and the third step."""
    levels = torch.exp(-pipe.scheduler.grid.half_logsnr[:STEPS])
    return float((levels[1] * levels[2]).sqrt())


@pytest.mark.parametrize("make", [*BATCHED, *TWICE], ids=lambda make: make.__name__)
def test_outside_it_is_the_condition_alone_and_inside_the_pipelines_guidance(make):
    guided, all_rows, pipe = enabled(make)
    unguided, one, _ = enabled(make, scale=1.0 if make is not transformers.z_image else 0.0)  # It adds its scale to 1.
    everywhere, rows, _ = enabled(make, (0.0, float("inf")))
    assert torch.equal(everywhere, guided) and rows == all_rows
    nowhere, rows, _ = enabled(make, FAR)
    # The same numbers but for the size of a batch, which decides how sums are rounded.
    assert (nowhere - unguided).abs().max() < 1e-3 * (guided - unguided).abs().max()
    assert rows == one and sum(all_rows) == 2 * sum(rows)
    level = middle(pipe)
    for interval in ((level, float("inf")), (0.0, level)):
        half, rows, pipe = enabled(make, interval)
        assert sum(rows) == sum(all_rows) * 3 // 4
        assert not torch.equal(half, guided)
        assert fs.summary(pipe).unguided_steps == STEPS // 2
        assert "2 of these steps outside the guidance interval" in str(fs.summary(pipe))


def test_it_is_classifier_free_guidance_in_an_interval():
    made, _, pipe = enabled(tiny.stable_diffusion)
    level = middle(pipe)
    made, _, pipe = enabled(tiny.stable_diffusion, (0.0, level))
    process, network = pipe.scheduler.formulation.process, pipe.unet

    def called(x, time, states):
        return network(x, time, encoder_hidden_states=states).sample

    _, call = tiny.stable_diffusion()
    inner = fs.Denoiser(called, process, "epsilon", network_time=pipe.scheduler.formulation.network_time)
    guided = fs.guidance.ClassifierFree(inner, 3.0, call["negative_prompt_embeds"], interval=(0.0, level))
    x_T = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    grid = pipe.scheduler.grid
    latents = tiny.run(pipe, {**call, "guidance_scale": 3.0}, latents=x_T.clone(), **LATENT)
    ours = fs.sample(guided, fs.UniPC(2), grid, x_T * pipe.scheduler.init_noise_sigma, cond=call["prompt_embeds"])
    # Float32 through four calls of a small network, whose sums are rounded differently in another batch.
    torch.testing.assert_close(latents, ours, rtol=0, atol=1e-4 * float(ours.abs().max()))


def test_it_goes_with_disable_and_a_copy_keeps_it():
    pipe, call = tiny.stable_diffusion()
    before = tiny.run(pipe, call, steps=STEPS)
    fs.enable(pipe, steps=STEPS, guidance_interval=FAR)
    rows = rows_of(pipe)
    tiny.run(pipe, call, steps=STEPS)
    tiny.run(copy.copy(pipe), call, steps=STEPS)
    assert rows == [1] * 2 * STEPS
    assert "guidance where 1e+06 < σ/α ≤ 2e+06" in str(fs.summary(pipe))
    fs.enable(pipe, steps=STEPS)
    rows.clear()
    tiny.run(pipe, call, steps=STEPS)
    assert rows == [2] * STEPS and "guidance" not in str(fs.summary(pipe))
    fs.disable(pipe)
    assert torch.equal(tiny.run(pipe, call, steps=STEPS), before)


def test_two_images_from_one_noise():
    """Two calls on states that are alike in both halves are no batch of two branches."""
    pipe, call = tiny.wan()
    fs.enable(pipe, steps=STEPS, guidance_interval=FAR)
    shape = tiny.run(pipe, call, **LATENT).shape
    noise = torch.randn(1, *shape[1:], generator=torch.Generator().manual_seed(0)).expand(2, *shape[1:])
    texts = {name: torch.cat([one, one.flip(1)]) for name, one in call.items() if name.endswith("embeds")}
    rows = rows_of(pipe)
    made = tiny.run(pipe, {**call, **texts, "guidance_scale": 3.0}, latents=noise.clone(), **LATENT)
    assert rows == [2] * STEPS
    pipe, _ = tiny.wan()
    fs.enable(pipe, steps=STEPS)
    alone = tiny.run(pipe, {**call, **texts, "guidance_scale": 1.0}, latents=noise.clone(), **LATENT)
    assert torch.equal(made, alone)


def test_of_a_pipeline_that_does_not_guide_it_is_said():
    pipe, call = tiny.stable_diffusion()
    fs.enable(pipe, steps=STEPS, guidance_interval=FAR)
    with pytest.warns(UserWarning, match="guidance_interval changed nothing"):
        tiny.run(pipe, {**call, "guidance_scale": 1.0}, steps=STEPS)


@pytest.mark.parametrize("interval", [(2.0, 0.2), (0.2,), 3.0, "wide", (-1.0, 2.0), (0.2, float("nan"))])
def test_what_is_no_interval(interval):
    pipe, _ = tiny.stable_diffusion()
    with pytest.raises(InputError, match="guidance interval is"):
        fs.enable(pipe, steps=STEPS, guidance_interval=interval)
    assert "_fewstep" not in vars(pipe)


def test_three_branches_are_refused():
    plain, _ = tiny.stable_diffusion()
    parts = {name: part for name, part in plain.components.items() if name != "image_encoder"}
    pipe = diffusers.StableDiffusionInstructPix2PixPipeline(**parts, requires_safety_checker=False)
    with pytest.raises(InputError, match="three branches"):
        fs.enable(pipe, steps=STEPS, guidance_interval=(0.2, 2.0))


def test_a_half_of_nested_arguments():
    both = torch.arange(4.0).view(4, 1)
    given = {
        "x": both,
        "time": torch.tensor(1.0),
        "residuals": [both, both + 4],
        "sizes": ["a", "b", "c", "d"],
        "image_rotary_emb": both,
        "more": {"text": (both, None)},
    }
    half = _Half(4, first=False, listed=False).of(given)
    assert half["x"].flatten().tolist() == [2.0, 3.0] and half["sizes"] == ["c", "d"]
    assert [one.flatten().tolist() for one in half["residuals"]] == [[2.0, 3.0], [6.0, 7.0]]
    assert half["image_rotary_emb"] is both and half["more"]["text"][1] is None and half["time"].ndim == 0
    assert torch.equal(half["more"]["text"][0], both[2:])
    assert torch.equal(_Half(4, True, False).of(both), both[:2])
    made = _Half(4, False, False).repeated(([both[:2]], both[2:]))
    assert torch.equal(made[0][0], both[:2].repeat(2, 1)) and torch.equal(made[1], both[2:].repeat(2, 1))

"""Any pipeline as a data prediction, beside the pipeline's own loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import tiny_pipelines as tiny
from support import tiny_transformer_pipelines as newer
from support.rounding import by_rows, effect

import fewstep as fs
from fewstep.errors import InputError
from fewstep.integrations.diffusers.one_call import OneCall

STEPS = 4


def built(make):
    pipe, call = make()
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return pipe, call


def own_loop(pipe, call, grid, latents, output_type="latent"):
    """What the pipeline makes of latents in its own loop, and the plan that ran: some pipelines pass their levels."""
    scheduler = fs.integrations.diffusers.FewStepScheduler.from_config(
        pipe.scheduler.config, solver="unipc", grid=grid.times.tolist()
    )
    pipe.scheduler = scheduler
    latents = latents / scheduler.init_noise_sigma  # By which the pipelines of EDM networks multiply them.
    made = tiny.run(pipe, call, steps=grid.steps, latents=latents, output_type=output_type)
    return made, scheduler.plan


def off(plan, model, x_T):
    """How far float32's roundings move what the plan makes; a network's layers, two to eight here, round too."""
    return 8 * effect(lambda rounded: by_rows(plan, model, x_T, rounded=rounded), torch.float32)


TAKES_LATENTS = [make for make in tiny.TEXT_TO_IMAGE if make.__name__ != "dit"]


@pytest.mark.parametrize("make", [*TAKES_LATENTS, *newer.ALL], ids=lambda make: make.__name__)
@pytest.mark.filterwarnings("ignore:.* sigmas are given:UserWarning")
def test_it_is_the_pipelines_own_loop(make):
    pipe, call = built(make)
    model = fs.models.from_pipeline(pipe, **call)
    grid = fs.grids.uniform_time(model.process, STEPS)
    x_T = fs.initial_state(grid, model.shape, [3])
    theirs, plan = own_loop(pipe, call, grid, model.layout.latents_of(x_T))
    ours = fs.execute(plan, model, x_T)
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(1 + theirs.abs().max()))


def test_stable_audio_by_its_own_schedulers_times():
    """Whose network is fed 2·atan(σ)/π; diffusers makes that scheduler only where torchsde is installed."""
    config = {**newer.STABLE_AUDIO_SCHEDULER, "_class_name": "CosineDPMSolverMultistepScheduler"}
    pipe, call = newer.stable_audio(fs.integrations.diffusers.FewStepScheduler.from_config(config))
    model = fs.models.from_pipeline(pipe, **call)
    assert (
        model.process == fs.processes.EDM(0.3, 500.0) and model.pipe.scheduler.formulation.noise_conditioning == "atan"
    )
    grid = fs.grids.uniform_logsnr(model.process, STEPS)
    x_T = fs.initial_state(grid, model.shape, [3])
    theirs, plan = own_loop(pipe, call, grid, model.layout.latents_of(x_T))
    ours = fs.execute(plan, model, x_T)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(1 + theirs.abs().max()))


@pytest.mark.parametrize("make", [tiny.stable_diffusion, tiny.flux, tiny.wan], ids=lambda make: make.__name__)
def test_a_batch_is_its_samples(make):
    pipe, call = built(make)
    model = fs.models.from_pipeline(pipe, **call)
    grid = fs.grids.uniform_time(model.process, 2)
    plan, x_T = fs.Euler().plan(grid), fs.initial_state(grid, model.shape, [1, 2])
    batch, alone = (fs.execute(plan, model, x) for x in (x_T, x_T[1:]))
    torch.testing.assert_close(batch[1:], alone, rtol=0, atol=off(plan, model, x_T[1:]))


def test_rows_of_embeddings_are_conditions():
    pipe, call = built(tiny.stable_diffusion)
    several = {**call, "prompt_embeds": torch.cat([call["prompt_embeds"], 3.0 * call["prompt_embeds"]])}
    model, first = fs.models.from_pipeline(pipe, **several), fs.models.from_pipeline(pipe, **call)
    grid = fs.grids.uniform_time(model.process, 2)
    x_T = fs.initial_state(grid, model.shape, [0, 0])
    plan = fs.Euler().plan(grid)
    made = fs.execute(plan, model, x_T, cond=[0, 1])
    torch.testing.assert_close(made[:1], fs.execute(plan, first, x_T[:1]), rtol=0, atol=off(plan, first, x_T[:1]))
    assert float((made[0] - made[1]).abs().max()) > 1e-3
    with pytest.raises(InputError, match="choose one for each sample"):
        fs.sample(model, fs.Euler(), grid, x_T)
    with pytest.raises(InputError, match="out of range"):
        fs.sample(model, fs.Euler(), grid, x_T, cond=[0, 2])


DECODED = [tiny.stable_diffusion, tiny.flux, tiny.wan, newer.flux_2, newer.ltx, newer.audioldm_2, newer.stable_audio]


@pytest.mark.parametrize("make", DECODED, ids=lambda make: make.__name__)
def test_decoding_is_the_pipelines_own(make):
    pipe, call = built(make)
    model = fs.models.from_pipeline(pipe, **call)
    grid = fs.grids.uniform_time(model.process, STEPS)
    x_T = fs.initial_state(grid, model.shape, [3])
    ours = model.decode(fs.sample(model, fs.UniPC(2), grid, x_T), output_type="np")
    theirs, _ = own_loop(pipe, call, grid, model.layout.latents_of(x_T), "np")
    scale = float(theirs.abs().max())
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4 * max(scale, 1.0))
    assert len(model.decode(torch.cat([x_T, x_T]))) == 2
    with pytest.raises(InputError, match="x0 has no samples"):
        model.decode(x_T[:0])


def test_no_prompt_at_all_is_refused():
    pipe, call = built(tiny.stable_diffusion)
    with pytest.raises(InputError, match="prompt is empty: give one or more"):
        fs.models.from_pipeline(pipe, **{**call, "prompt": []})


def test_two_experts_are_called_where_each_belongs():
    pipe, call = built(newer.wan_22)
    model = fs.models.from_pipeline(pipe, **call)
    called = []
    pipe.transformer.register_forward_pre_hook(lambda *_: called.append(1))
    pipe.transformer_2.register_forward_pre_hook(lambda *_: called.append(2))
    x = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(0))
    assert model.boundary == 0.875 and fs.models.from_pipeline(*built(tiny.wan)[:1], **call).boundary is None
    for t in (0.9, model.boundary, 0.8):
        model(x, torch.tensor(t, dtype=torch.float64))
    assert called == [1, 1, 1, 1, 2, 2]  # Each twice, for guidance.
    grid = fs.grids.optimized(model.process, fs.UniPC(2), 5, boundary=model.boundary)
    called.clear()
    fs.sample(model, fs.UniPC(2), grid, seeds=[0])
    assert called.count(1) == 2 * int((grid.times >= 0.875).sum()) and 0 < called.count(2) < len(called)


def test_the_pipeline_stays_as_it_is():
    pipe, call = built(tiny.stable_diffusion)
    before = dict(vars(pipe))
    model = fs.models.from_pipeline(pipe, **call)
    fs.sample(model, fs.Euler(), fs.grids.uniform_time(model.process, 2), seeds=[0])
    assert vars(pipe).keys() == before.keys() and all(vars(pipe)[name] is before[name] for name in before)


def test_a_text_is_encoded_once():
    pipe, call = built(tiny.stable_diffusion)
    asked = []

    def encode(prompt, device, *args, **kwargs):
        asked.append(prompt)
        rows = torch.stack([tiny.embeddings(5, 16, seed=len(text)) for text in prompt])
        return rows, torch.zeros_like(rows)

    pipe.encode_prompt = encode
    settings = {name: value for name, value in call.items() if "embeds" not in name}
    model = fs.models.from_pipeline(pipe, **settings, prompt=["a cat", "a horse"], negative_prompt="blurred")
    asked.clear()
    fs.sample(model, fs.UniPC(2), fs.grids.uniform_time(model.process, 5), seeds=[0, 1], cond=[0, 1])
    assert asked == [["a cat", "a horse"]]


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({"latents": torch.zeros(1, 4, 8, 8)}, "latents is what fewstep decides"),
        ({"hight": 16}, "takes no 'hight'"),
        ({"prompt_embeds": torch.zeros(3, 5, 16), "negative_prompt_embeds": torch.zeros(2, 5, 16)}, "has 2 conditions"),
    ],
)
def test_mistakes(change, answer):
    pipe, call = built(tiny.stable_diffusion)
    with pytest.raises(InputError, match=answer):
        fs.models.from_pipeline(pipe, **{**call, **change})


def test_what_changes_latents_between_its_steps_is_refused():
    pipe, call = built(tiny.stable_diffusion_inpaint)
    with pytest.raises(InputError, match="between its steps"):
        fs.models.from_pipeline(pipe, **call)


def test_what_a_pipeline_feeds_beside_its_levels_is_no_time_of_a_model():
    one_call = OneCall(prediction_type="flow_prediction", use_flow_sigmas=True)
    with pytest.raises(InputError, match="timesteps beside its sigmas"):
        one_call.set_timesteps(timesteps=[1000, 500], sigmas=[1.0, 0.5])


def test_what_the_pipeline_says_of_the_call_is_passed_on():
    pipe, call = built(tiny.stable_diffusion_inpaint)
    with pytest.raises(InputError, match="does not take this call for one step: After adjusting"):
        fs.models.from_pipeline(pipe, **{**call, "strength": 0.4})


def test_what_is_no_pipeline_with_latents():
    with pytest.raises(InputError, match="takes no latents"):
        fs.models.from_pipeline(tiny.dit()[0], class_labels=[1])
    with pytest.raises(InputError, match="pipe is int"):
        fs.models.from_pipeline(3)

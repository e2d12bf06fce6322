"""Any pipeline as a data prediction, beside the pipeline's own loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import tiny_pipelines as tiny

import fewstep as fs
from fewstep.errors import InputError

STEPS = 4


def built(make):
    pipe, call = make()
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return pipe, call


def own_loop(pipe, call, solver, grid, x_T):
    """What the pipeline makes of ``x_T`` in its own loop, with the plan of the scheduler."""
    pipe.scheduler = fs.integrations.diffusers.FewStepScheduler.from_config(
        pipe.scheduler.config, solver=solver, grid=grid.times.tolist()
    )
    return tiny.run(pipe, call, steps=grid.steps, latents=x_T.clone(), output_type="latent")


TAKES_LATENTS = [make for make in tiny.TEXT_TO_IMAGE if make.__name__ != "dit"]


@pytest.mark.parametrize("make", TAKES_LATENTS, ids=lambda make: make.__name__)
def test_it_is_the_pipelines_own_loop(make):
    pipe, call = built(make)
    model = fs.models.from_pipeline(pipe, **call)
    grid = fs.grids.uniform_time(model.process, STEPS)
    x_T = fs.initial_state(grid, model.shape, [3])
    ours = fs.sample(model, fs.UniPC(2), grid, x_T)
    theirs = own_loop(pipe, call, "unipc", grid, x_T)
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(1 + theirs.abs().max()))


@pytest.mark.parametrize("make", [tiny.stable_diffusion, tiny.flux, tiny.wan], ids=lambda make: make.__name__)
def test_a_batch_is_its_samples(make):
    pipe, call = built(make)
    model = fs.models.from_pipeline(pipe, **call)
    grid = fs.grids.uniform_time(model.process, 2)
    batch = fs.sample(model, fs.Euler(), grid, seeds=[1, 2])
    alone = fs.sample(model, fs.Euler(), grid, seeds=[2])
    torch.testing.assert_close(batch[1:], alone, rtol=1e-4, atol=1e-4)


def test_rows_of_embeddings_are_conditions():
    pipe, call = built(tiny.stable_diffusion)
    several = {**call, "prompt_embeds": torch.cat([call["prompt_embeds"], 3.0 * call["prompt_embeds"]])}
    model, first = fs.models.from_pipeline(pipe, **several), fs.models.from_pipeline(pipe, **call)
    grid = fs.grids.uniform_time(model.process, 2)
    x_T = fs.initial_state(grid, model.shape, [0, 0])
    made = fs.sample(model, fs.Euler(), grid, x_T, cond=[0, 1])
    torch.testing.assert_close(made[:1], fs.sample(first, fs.Euler(), grid, x_T[:1]), rtol=1e-4, atol=1e-4)
    assert float((made[0] - made[1]).abs().max()) > 1e-3
    with pytest.raises(InputError, match="choose one for each sample"):
        fs.sample(model, fs.Euler(), grid, x_T)
    with pytest.raises(InputError, match="out of range"):
        fs.sample(model, fs.Euler(), grid, x_T, cond=[0, 2])


@pytest.mark.parametrize("make", [tiny.stable_diffusion, tiny.flux, tiny.wan], ids=lambda make: make.__name__)
def test_decoding_is_the_pipelines_own(make):
    pipe, call = built(make)
    model = fs.models.from_pipeline(pipe, **call)
    grid = fs.grids.uniform_time(model.process, STEPS)
    x_T = fs.initial_state(grid, model.shape, [3])
    ours = model.decode(fs.sample(model, fs.UniPC(2), grid, x_T), output_type="np")
    pipe.scheduler = fs.integrations.diffusers.FewStepScheduler.from_config(
        pipe.scheduler.config, solver="unipc", grid=grid.times.tolist()
    )
    theirs = tiny.run(pipe, call, steps=STEPS, latents=x_T.clone(), output_type="np").numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert len(model.decode(torch.cat([x_T, x_T]))) == 2


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


def test_what_is_no_pipeline_with_latents():
    with pytest.raises(InputError, match="takes no latents"):
        fs.models.from_pipeline(tiny.dit()[0], class_labels=[1])
    with pytest.raises(InputError, match="pipe is int"):
        fs.models.from_pipeline(3)

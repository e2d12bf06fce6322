"""Whole pipelines from folders, within some hundred calls: Flux, SDXL and Wan 2.2 with its two experts."""

from __future__ import annotations

import pytest
import torch
from support import tiny_pipelines as tiny
from support import tiny_transformer_pipelines as transformers

import fewstep as fs
from fewstep.models import from_pipeline

PIPELINES = {"Flux": tiny.flux, "SDXL": tiny.stable_diffusion_xl, "Wan 2.2": transformers.wan_22}


@pytest.mark.parametrize("name", PIPELINES)
def test_it_is_tuned_and_runs_the_recipe(name, tmp_path):
    made, call = PIPELINES[name]()
    made.save_pretrained(tmp_path / "pipeline")
    absent = {name: None for name, part in made.components.items() if part is None}
    pipe = type(made).from_pretrained(tmp_path / "pipeline", **absent)
    model = from_pipeline(pipe, **call)
    found = fs.tune(model, 4, budget=160, folder=tmp_path / "search", batch_size=2)
    assert found.verdict.default == type(pipe.scheduler).__name__
    assert found.calls <= 160 and found.recipe.plan.nfe == 4
    assert len(found.tried) > 1
    scheduler = pipe.scheduler
    fs.enable(pipe, recipe=found.recipe)
    latents = torch.randn(1, *model.layout.shape, generator=torch.Generator().manual_seed(0))
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(**call, latents=latents, output_type="latent")[0]
    assert bool(torch.isfinite(theirs).all())
    assert fs.summary(pipe).steps == 4
    fs.disable(pipe)
    assert pipe.scheduler is scheduler


def test_guidance_of_a_recipe_is_that_of_the_calls(tmp_path):
    pipe, call = tiny.stable_diffusion_xl()
    model = from_pipeline(pipe, **call)
    found = fs.tune(
        model, 4, objective=fs.tuning.Score(lambda images: images.mean((1, 2, 3)), "brightness"), budget=300
    )
    scales = {one.settings.guidance for one in found.tried}
    assert {5.0 * factor for factor in (0.6, 0.8, 1.25, 1.5)} <= scales
    assert {one.settings.skip.bottom for one in found.tried if one.settings.skip} == {0.95, 0.9, 0.8, 0.7}
    chosen = found.winner if found.verdict.better else found.default
    assert found.recipe.guidance == (chosen.guidance or 5.0)
    recipe = fs.Recipe(found.recipe.plan, None, found.recipe.model, guidance=7.5)
    seen = []

    def kept(pipe, *_):
        seen.append(pipe.guidance_scale)
        return {}

    fs.enable(pipe, recipe=recipe)
    pipe.set_progress_bar_config(disable=True)
    pipe(**call, output_type="latent", callback_on_step_end=kept)
    pipe(**call, guidance_scale=2.0, output_type="latent", callback_on_step_end=kept)
    assert seen == [7.5] * 4 + [2.0] * 4

"""Folders of pipelines that are called as a whole, on the command line: Stable Diffusion XL with real text encoders."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from support import text_folder
from support import tiny_pipelines as tiny
from typer.testing import CliRunner

import fewstep as fs
from fewstep.cli.app import app
from fewstep.errors import InputError
from fewstep.models.pipelines import load_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return text_folder.stable_diffusion_xl(tmp_path_factory.mktemp("xl"))


def test_it_draws_what_the_pipeline_does(folder):
    model = load_pipeline(folder).guided(4.0)
    grid = fs.grids.uniform_time(model.denoiser.process, 3)
    plan = fs.UniPC(2).plan(grid)
    images = model.draw(plan, [3, 3, 4], ["a cat", "a horse", "a cat"])
    assert images.shape == (3, 3, 16, 16) and not torch.equal(images[0], images[1])
    pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(folder)
    fs.enable(pipe, grid=grid, solver=fs.UniPC(2))
    latents = fs.initial_state(grid, model.denoiser.shape, [3])
    theirs = tiny.run(pipe, {"prompt": "a horse", "guidance_scale": 4.0}, steps=3, latents=latents)
    expected = theirs.movedim(-1, 1) * 2 - 1
    torch.testing.assert_close(images[1:2].double(), expected.double(), rtol=0, atol=2e-4)


def test_the_command_line_takes_it(folder, tmp_path):
    words = ["sample", "--model", folder, "--steps", 2, "--num", 2, "--guidance", 4, "--out", tmp_path / "made.npz"]
    needs = CliRunner().invoke(app, [str(word) for word in words])
    assert isinstance(needs.exception, InputError) and "needs a prompt" in str(needs.exception)
    made = CliRunner().invoke(app, [str(word) for word in [*words, "--prompt", "a cat"]], catch_exceptions=False)
    assert made.exit_code == 0, made.output
    with np.load(tmp_path / "made.npz") as arrays:
        assert arrays["images"].shape == (2, 16, 16, 3)


def test_without_guidance_the_pipeline_has_its_own(folder):
    model = load_pipeline(folder)
    assert model.guided(None) is model and model.denoiser.guidance_scale == 5.0  # Stable Diffusion XL's default.
    assert model.guided(1.0).denoiser.guidance_scale == 1.0


def test_prompts_are_numbered_once(folder):
    denoiser = load_pipeline(folder).denoiser
    assert denoiser.add_prompts(["a cat", "a horse", "a cat"]).tolist() == [1, 2, 1]
    assert denoiser.add_prompts(["a horse"]).tolist() == [2] and denoiser.num_classes == 3
    given = fs.models.from_pipeline(tiny.stable_diffusion()[0], **tiny.SD_CALL)
    with pytest.raises(InputError, match="was not given a prompt"):
        given.add_prompts(["a cat"])

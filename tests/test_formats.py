"""Files that version 0.1.0's first format left behind still load, and give the same samples bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import fewstep as fs
from fewstep.plan import FIRST_FORMAT

FIXTURES = Path(__file__).parent / "fixtures" / "v0_1"


@pytest.fixture(scope="module")
def samples():
    return load_file(FIXTURES / "samples.safetensors")


def model(x, t):
    return torch.tanh(1.3 * x) * 0.7 / (1 + t)


@pytest.mark.parametrize("name", ["plan-sa", "plan-deis", "plan-flow"])
def test_a_plan(name, samples):
    text = (FIXTURES / f"{name}.json").read_text()
    assert json.loads(text)["format"] == FIRST_FORMAT
    plan = fs.Plan.from_json(text)
    x_T = samples["x_T"] * float(plan.process.sigma(plan.times[0]))
    torch.testing.assert_close(fs.execute(plan, model, x_T, seeds=[1, 2, 3]), samples[name], rtol=0, atol=0)
    again = fs.Plan.from_json(plan.to_json())
    torch.testing.assert_close(fs.execute(again, model, x_T, seeds=[1, 2, 3]), samples[name], rtol=0, atol=0)


def test_a_grid(samples):
    grid = fs.TimeGrid.from_json((FIXTURES / "grid.json").read_text())
    made = fs.sample(model, fs.UniPC(order=2), grid, samples["x_T"])
    torch.testing.assert_close(made, samples["grid"], rtol=0, atol=0)


def test_a_recipe(samples):
    recipe = fs.load_recipe(FIXTURES / "recipe.json")
    denoiser = fs.Denoiser(
        lambda x, t: 0.5 * x / (1 + t.view(-1, 1, 1, 1)) + 0.1 * torch.sin(3 * x),
        fs.processes.VPLinear(),
        prediction="epsilon",
    )
    torch.testing.assert_close(fs.execute(recipe, denoiser, samples["x_T"]), samples["recipe"], rtol=0, atol=0)
    assert recipe.report.num == 16 and recipe.versions["fewstep"] == "0.1.0"


def test_a_skip_profile():
    profile = fs.skip.load(FIXTURES / "profile.json")
    assert profile == fs.skip.Profile(bottom=0.7, top=1.0, sigma_window=(0.1, 5.0), ramp=0.5)
    assert profile.factors(5) == json.loads((FIXTURES / "factors.json").read_text())

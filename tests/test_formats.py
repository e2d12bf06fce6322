"""Files that version 0.1.0's first format left behind still load, and give the same samples.

But for rounding: the samples were made on one processor, and kernels of others sum in other orders. What is computed
from the tables as they were is the same to the bit.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.rounding import by_rows, effect

import fewstep as fs
from fewstep.executor.noise import STEPS, seeded_generators
from fewstep.plan import FIRST_FORMAT

FIXTURES = Path(__file__).parent / "fixtures" / "v0_1"


@pytest.fixture(scope="module")
def samples():
    return load_file(FIXTURES / "samples.safetensors")


def model(x, t):
    return torch.tanh(1.3 * x) * 0.7 / (1 + t)


def off(plan, denoiser, x_T):
    """How far roundings move what the plan makes, noise included."""
    noise = torch.randn(plan.steps, *x_T.shape, dtype=x_T.dtype, generator=torch.Generator().manual_seed(0))
    return effect(lambda rounded: by_rows(plan, denoiser, x_T, noise, rounded), x_T.dtype)


@pytest.mark.parametrize("name", ["plan-sa", "plan-deis", "plan-flow"])
def test_a_plan(name, samples):
    text = (FIXTURES / f"{name}.json").read_text()
    assert json.loads(text)["format"] == FIRST_FORMAT
    plan = fs.Plan.from_json(text)
    x_T = samples["x_T"] * float(plan.process.sigma(plan.times[0]))
    noise = seeded_generators([1, 2, 3], x_T.device, STEPS) if plan.stochastic else None  # which steps drew from then
    made = fs.execute(plan, model, x_T, generator=noise)
    torch.testing.assert_close(made, samples[name], rtol=0, atol=off(plan, model, x_T))
    again = fs.Plan.from_json(plan.to_json())
    noise = seeded_generators([1, 2, 3], x_T.device, STEPS) if plan.stochastic else None
    assert torch.equal(fs.execute(again, model, x_T, generator=noise), made)


def test_a_grid(samples):
    grid = fs.TimeGrid.from_json((FIXTURES / "grid.json").read_text())
    plan = fs.UniPC(order=2).plan(grid)
    made = fs.execute(plan, model, samples["x_T"])
    torch.testing.assert_close(made, samples["grid"], rtol=0, atol=off(plan, model, samples["x_T"]))


def test_a_recipe(samples):
    recipe = fs.load_recipe(FIXTURES / "recipe.json")
    denoiser = fs.Denoiser(
        lambda x, t: 0.5 * x / (1 + t.view(-1, 1, 1, 1)) + 0.1 * torch.sin(3 * x),
        fs.processes.VPLinear(),
        prediction="epsilon",
    )
    made = fs.execute(recipe, denoiser, samples["x_T"])
    torch.testing.assert_close(made, samples["recipe"], rtol=0, atol=off(recipe.plan, denoiser, samples["x_T"]))
    assert recipe.report.num == 16 and recipe.versions["fewstep"] == "0.1.0"


def test_a_skip_profile():
    profile = fs.skip.load(FIXTURES / "profile.json")
    assert profile == fs.skip.Profile(bottom=0.7, top=1.0, sigma_window=(0.1, 5.0), ramp=0.5)
    assert profile.factors(5) == json.loads((FIXTURES / "factors.json").read_text())

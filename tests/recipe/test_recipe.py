from __future__ import annotations

import json
import warnings
from dataclasses import replace

import pytest
import torch
from support.exact import GaussianMixture

import fewstep as fs
from fewstep.errors import InputError
from fewstep.fingerprint import fingerprint, warn_if_other_model
from fewstep.guidance import ClassifierFree
from fewstep.recipe import interpolated

PROCESS = fs.processes.VPLinear()
GRID = fs.grids.karras(PROCESS, 3, end="zero")


class Net(torch.nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.nn.Parameter(0.3 * torch.randn(4, 4, generator=generator), requires_grad=False)
        self.config = {"width": 4}

    def forward(self, x, t, cond=None):
        return torch.tanh(x @ self.weight)


def denoiser(seed=0, prediction="x0"):
    return fs.Denoiser(Net(seed), PROCESS, prediction, shape=(4,), num_classes=2)


@pytest.fixture(scope="module")
def recipe():
    return fs.calibrate(denoiser(), fs.UniPC(2), GRID, num=16, objective="local", cond="none")


def test_a_recipe_gives_the_same_plan_back(recipe, tmp_path):
    path = tmp_path / "recipe.json"
    recipe.save(path)
    back = fs.load_recipe(path)
    assert isinstance(back, fs.Recipe)
    for name in ("times", "interval", "state_weight", "history_weights", "noise_scale", "evaluate"):
        assert torch.equal(getattr(back.plan, name), getattr(recipe.plan, name)), name
    assert back.plan.fitted is recipe.plan.fitted and back.plan.grid == recipe.plan.grid
    assert back.plan.solver == recipe.plan.solver and back.versions == recipe.versions
    assert back.report == recipe.report and back.model == recipe.model
    assert back.to_json() == recipe.to_json()


def test_a_plan_reads_a_recipe(recipe):
    read = fs.Plan.from_json(recipe.to_json())
    assert type(read) is fs.Plan
    assert torch.equal(read.history_weights, recipe.plan.history_weights)


def test_what_it_was_fitted_to_is_in_it(recipe):
    data = json.loads(recipe.to_json())
    assert data["calibration"]["model"]["network"] == "Net"
    assert data["calibration"]["model"]["fingerprint"] == fingerprint(denoiser())
    assert data["calibration"]["model"]["guidance_scale"] == 1.0
    assert data["calibration"]["report"]["calls"] == recipe.report.calls
    assert data["calibration"]["versions"]["torch"] == torch.__version__
    assert data["process"]["name"] == "vp-linear"


def test_another_schema_version_is_refused(recipe):
    data = json.loads(recipe.to_json())
    data["calibration"]["schema"] = 99
    with pytest.raises(InputError, match="schema version 99.*reads 1"):
        fs.Recipe.from_json(json.dumps(data))


def test_guidance_and_skips_are_kept_and_versioned(recipe):
    """Earlier readers, which would leave them out, refuse them by the version; without them nothing is different."""
    held = recipe.to_dict()["calibration"]
    assert held["schema"] == 1 and set(held) == {"schema", "model", "report", "versions"}
    skip = json.loads(fs.skip.Profile(0.8).to_json())
    assert replace(recipe, guidance=2.0).to_dict()["calibration"]["schema"] == 2
    more = replace(recipe, guidance="4:interval=0.2:3", skip=skip, tuning={"budget": 100})
    again = fs.Recipe.from_json(more.to_json())
    assert again.to_json() == more.to_json() and more.to_dict()["calibration"]["schema"] == 2
    assert again.guidance == "4:interval=0.2:3"
    assert fs.skip.Profile.from_json(json.dumps(again.skip)) == fs.skip.Profile(0.8)
    assert again.tuning == {"budget": 100} and recipe.guidance is None


def test_a_plain_plan_is_no_recipe():
    with pytest.raises(InputError, match="not a recipe"):
        fs.Recipe.from_json(fs.UniPC(2).plan(GRID).to_json())


@pytest.mark.parametrize(
    "break_it", [lambda c: c.pop("model"), lambda c: c["report"].pop("rows"), lambda c: c["report"].update(x=1)]
)
def test_a_damaged_recipe_is_refused(recipe, break_it):
    data = json.loads(recipe.to_json())
    break_it(data["calibration"])
    with pytest.raises(InputError, match="damaged"):
        fs.Recipe.from_json(json.dumps(data))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        fs.load_recipe(tmp_path / "no.json")


def test_the_same_model_warns_of_nothing(recipe):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_other_model(recipe, denoiser())
        warn_if_other_model(recipe, lambda x, t: x)  # Nothing is known of a callable.


def test_another_model_is_warned_of(recipe):
    with pytest.warns(UserWarning, match="another model"):
        warn_if_other_model(recipe, denoiser(seed=1))


def test_another_guidance_scale_is_warned_of(recipe):
    with pytest.warns(UserWarning, match=r"guidance_scale=1, and runs at 3"):
        warn_if_other_model(recipe, fs.guidance.ClassifierFree(denoiser(), 3.0, 0))


def test_a_fingerprint_is_of_weights_configuration_and_prediction():
    own = fingerprint(denoiser())
    assert own == fingerprint(denoiser()) and len(own) == 64
    assert own == fingerprint(fs.guidance.ClassifierFree(denoiser(), 3.0, 0))
    other = denoiser()
    other.network.config = {"width": 5}
    assert len({own, fingerprint(denoiser(seed=1)), fingerprint(denoiser(prediction="v")), fingerprint(other)}) == 4
    assert fingerprint(lambda x, t: x) == ""


class Guided(fs.DataPredictor):
    """The example mixture, moved by its class; class 2 is the null class."""

    process, shape, num_classes = PROCESS, (2,), 3

    def __init__(self):
        self.mixture = GaussianMixture.example(PROCESS)

    def __call__(self, x_t, t, cond):
        shift = 0.2 * (cond[:, None].double() - 2.0)
        return (self.mixture(x_t.double() - shift, t) + shift).to(x_t.dtype)


@pytest.fixture(scope="module")
def guided():
    grid = fs.grids.karras(PROCESS, 5, end="zero")
    settings = {"num": 32, "reference_steps": 60, "analytic": 0, "loss": "square", "cond": [0, 1] * 16}
    return {
        scale: fs.calibrate(ClassifierFree(Guided(), scale, 2), fs.UniPC(2), grid, **settings) for scale in (2.0, 4.0)
    }


def test_between_guidance_scales_recipes_are_interpolated(guided):
    """At a scale that no recipe was fitted at, the interpolated one is better than either."""
    model, grid = ClassifierFree(Guided(), 3.0, 2), guided[2.0].plan.grid
    x_T = fs.initial_state(grid, (2,), range(128)).double()
    cond = torch.arange(128) % 2
    exact = fs.sample(model, fs.UniPC(3), fs.grids.uniform_logsnr(PROCESS, 300, end="zero"), x_T, cond=cond)
    made = interpolated(list(guided.values()), 3.0)
    assert made.model["guidance_scale"] == 3.0 and made.report is None

    def error(recipe):
        return float((fs.execute(recipe, model, x_T, cond=cond) - exact).square().mean().sqrt())

    assert error(made) < min(error(recipe) for recipe in guided.values())
    for scale, recipe in guided.items():
        same = interpolated(list(guided.values())[::-1], scale).plan
        assert torch.equal(same.times, recipe.plan.times)
        torch.testing.assert_close(same.history_weights, recipe.plan.history_weights, rtol=0, atol=1e-15)


def test_recipes_that_cannot_be_interpolated_are_refused(guided, recipe):
    pair = list(guided.values())
    with pytest.raises(InputError, match="reach from 2 to 4"):
        interpolated(pair, 5.0)
    for few in (pair[:1], [pair[0], pair[0]]):
        with pytest.raises(InputError, match="of different scales"):
            interpolated(few, 2.0)
    other = replace(pair[1], plan=fs.UniPC(2).plan(fs.grids.karras(PROCESS, 4, end="zero")))
    with pytest.raises(InputError, match="differ in more than numbers"):
        interpolated([pair[0], other], 3.0)


@pytest.mark.parametrize(
    "wrong",
    [{1: 2}, {"a": {1: 2}}, {"a": [{None: 1}]}, {"a": "\ud800"}, {"a": float("nan")}, {"a": object()}, [], "x"],
    ids=["a key", "a key within", "a key in a list", "half a character", "nan", "an object", "a list", "a word"],
)
@pytest.mark.parametrize("name", ["model", "versions", "skip", "tuning"])
def test_what_json_cannot_give_back_is_refused(recipe, name, wrong):
    with pytest.raises(InputError, match=f"^{name} is"):
        replace(recipe, **{name: wrong})
    deep = {"a": 1}
    for _ in range(300):
        deep = {"a": deep}
    with pytest.raises(InputError, match=f"^{name} is"):
        replace(recipe, **{name: deep})
    with pytest.raises(InputError, match="^guidance is"):
        replace(recipe, guidance="\ud800")

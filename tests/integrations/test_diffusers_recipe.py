"""Recipes in diffusers pipelines: the calibrated plan is what runs, and nothing else is taken for it."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import replace

import diffusers
import pytest
import torch
from support.rounding import by_rows, effect
from support.tiny_pipelines import run, stable_diffusion_image
from support.waiting import without_waiting

import fewstep as fs
from fewstep.analytic import AnalyticPrediction
from fewstep.errors import InputError
from fewstep.executor import folded, with_last_formula
from fewstep.integrations.diffusers import FewStepScheduler
from fewstep.models.pipelines import load_pipeline
from fewstep.recipe import RecipeBook

STEPS = 3


def pipeline(prediction_type="epsilon", seed=0):
    torch.manual_seed(seed)
    network = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    )
    scheduler = diffusers.DDPMScheduler(prediction_type=prediction_type, clip_sample=False)
    return diffusers.DDPMPipeline(network, scheduler)


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def calibrated(request, tmp_path_factory):
    """A pipeline, its recipe, and the denoiser that it was calibrated on."""
    return made(request.param, 0, tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def led(tmp_path_factory):
    """The same, with a recipe that begins with two formulas."""
    return made("v_prediction", 2, tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module", params=[0, STEPS], ids=["of the state", "of predictions too"])
def ended(request, tmp_path_factory):
    """The same, with a formula after the last row."""
    pipe, path, model = made("v_prediction", 0, tmp_path_factory.mktemp("recipe"))
    recipe, generator = fs.load_recipe(path), torch.Generator().manual_seed(0)
    values, gains = torch.randn(3, 8, 8, generator=generator), torch.linspace(0.5, 1.5, 11, dtype=torch.float64)
    if request.param:
        mixed = 0.3 * torch.randn(11, 3, 3 * (1 + request.param), dtype=torch.float64, generator=generator)
        gains = mixed + torch.eye(3, mixed.shape[2], dtype=torch.float64)
    last = AnalyticPrediction(gains, values)
    path = tmp_path_factory.mktemp("recipe") / "recipe.json"
    replace(recipe, plan=with_last_formula(recipe.plan, last)).save(path)
    return pipe, path, model


def made(prediction, analytic, folder, steps=STEPS):
    pipe = pipeline(prediction)
    pipe.save_pretrained(folder / "pipeline")
    model = load_pipeline(folder / "pipeline").denoiser
    grid = fs.grids.karras(model.process, steps, end="zero")
    recipe = fs.calibrate(model, fs.UniPC(2), grid, num=8, reference_steps=12, objective="local", analytic=analytic)
    assert recipe.plan.nfe == steps and recipe.plan.steps == steps + analytic
    recipe = replace(recipe, report=None)
    path = folder / "recipe.json"
    recipe.save(path)
    return pipe, path, model


def shown(x):
    """A sample as a pipeline shows it."""
    return (x / 2 + 0.5).clamp(0, 1).movedim(1, -1)


def assert_expected(images, path, model):
    """They are the core's, from the pipeline's own noise, but for float32's roundings."""
    x_T = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    recipe = fs.load_recipe(path)
    atol = effect(lambda rounded: shown(by_rows(recipe.plan, model, x_T, rounded=rounded)), torch.float32)
    torch.testing.assert_close(images, shown(fs.execute(recipe, model, x_T)), rtol=0, atol=atol)


@pytest.mark.parametrize("given", [True, False])
def test_the_pipeline_runs_the_recipe(calibrated, given):
    pipe, path, model = calibrated
    config = pipe.scheduler.config if given else None
    fresh = diffusers.DDPMPipeline(pipe.unet, FewStepScheduler.from_recipe(path, config))
    assert_expected(run(fresh, {"batch_size": 2}, STEPS), path, model)
    assert "recipe" in repr(fresh.scheduler.solver)


def test_enable_takes_it_with_its_number_of_steps(calibrated):
    pipe, path, model = calibrated
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fs.enable(pipe, recipe=path)
    try:
        images = run(pipe, {"batch_size": 2}, STEPS)
        assert_expected(images, path, model)
        assert fs.summary(pipe).steps == STEPS
        with pytest.raises(InputError, match=f"num_inference_steps={STEPS}"):
            run(pipe, {"batch_size": 2}, STEPS + 1)
    finally:
        fs.disable(pipe)


def test_a_fitted_plan_may_add_noise(tmp_path):
    pipe = pipeline()
    pipe.save_pretrained(tmp_path)
    model = load_pipeline(tmp_path).denoiser
    solver, grid = (
        fs.SASolver(2, 2, tau=(0.4, 0.9, 0.0), few_step=True),
        fs.grids.karras(model.process, STEPS, end="zero"),
    )
    own = folded(solver.plan(grid))
    recipe = fs.Recipe(replace(own, state_weight=1.01 * own.state_weight, fitted=True))
    fresh = diffusers.DDPMPipeline(pipe.unet, FewStepScheduler.from_recipe(recipe, pipe.scheduler.config))
    generator = torch.Generator().manual_seed(0)
    x_T, *noise = (torch.randn(2, 3, 8, 8, generator=generator) for _ in range(STEPS))
    noise.append(torch.zeros_like(x_T))
    atol = effect(lambda rounded: shown(by_rows(recipe.plan, model, x_T, noise, rounded)), torch.float32)
    images = run(fresh, {"batch_size": 2}, STEPS)
    torch.testing.assert_close(images, shown(by_rows(recipe.plan, model, x_T, noise)), rtol=0, atol=atol)


def test_it_is_saved_with_the_pipeline(calibrated, tmp_path):
    pipe, path, model = calibrated
    FewStepScheduler.from_recipe(path, pipe.scheduler.config).save_pretrained(tmp_path)
    again = diffusers.DDPMPipeline(pipe.unet, FewStepScheduler.from_pretrained(tmp_path))
    assert_expected(run(again, {"batch_size": 2}, STEPS), path, model)


def test_another_network_is_warned_of(calibrated):
    _, path, model = calibrated
    other = pipeline({"epsilon": "epsilon", "v": "v_prediction"}[model.prediction], seed=1)
    with pytest.warns(UserWarning, match="another model"):
        fs.enable(other, recipe=path)


def test_another_process_is_refused(calibrated):
    _, path, _ = calibrated
    config = {**diffusers.DDPMScheduler(beta_end=0.03).config}
    with pytest.raises(InputError, match="was calibrated for"):
        FewStepScheduler.from_recipe(path, config)


@pytest.mark.parametrize("settings", [{"solver": "dpmpp"}, {"grid": "karras"}, {"tau": 0.5}])
def test_what_the_recipe_decides_is_not_given_again(calibrated, settings):
    with pytest.raises(InputError, match="decides it: leave it out"):
        FewStepScheduler.from_recipe(calibrated[1], **settings)


def test_settings_given_later_replace_it(calibrated):
    pipe, path, _ = calibrated
    kept = FewStepScheduler.from_recipe(path, pipe.scheduler.config)
    other = FewStepScheduler.from_config(kept.config, solver="dpmpp")
    assert isinstance(other.solver, fs.DPMSolverPP) and other.config.recipe is None and other.config.grid == "simple"
    same = FewStepScheduler.from_config(kept.config, clip_sample=True)
    assert same.config.recipe == kept.config.recipe and same.config.grid == kept.config.grid


def test_a_damaged_recipe_is_answered():
    with pytest.raises(InputError):
        FewStepScheduler(recipe={"x": 1})


def test_a_refused_call_leaves_the_last_one(calibrated):
    scheduler = FewStepScheduler.from_recipe(calibrated[1])
    scheduler.set_timesteps(STEPS)
    grid = scheduler.grid
    with pytest.raises(InputError, match="runs its"):
        scheduler.set_timesteps(timesteps=[900, 500, 20])
    assert scheduler.grid is grid


@pytest.mark.filterwarnings("error::UserWarning")
def test_wrapped_and_offloaded_networks_are_the_same_model(calibrated):
    pipe, path, _ = calibrated
    compiled = diffusers.DDPMPipeline(pipe.unet, pipe.scheduler)
    compiled.unet = torch.compile(pipe.unet, backend="eager")
    fs.disable(fs.enable(compiled, recipe=path))
    offloaded = pipeline(pipe.scheduler.config.prediction_type)
    offloaded.unet.to("meta")
    fs.enable(offloaded, recipe=path)


def test_enable_takes_no_steps_beside_it(calibrated):
    pipe, path, _ = calibrated
    with pytest.raises(InputError, match="the recipe is of 3 steps"):
        fs.enable(pipe, 8, recipe=path)
    with pytest.raises(InputError, match="decides solver and grid"):
        fs.enable(pipe, solver="unipc", recipe=path)
    assert isinstance(pipe.scheduler, diffusers.DDPMScheduler)


@pytest.mark.parametrize("lists", [{"timesteps": [900, 500, 20]}, {"sigmas": [10.0, 1.0, 0.1]}])
def test_lists_of_levels_are_refused(calibrated, lists):
    scheduler = FewStepScheduler.from_recipe(calibrated[1])
    with pytest.raises(InputError, match="runs its 3 steps"):
        scheduler.set_timesteps(**lists)


def test_a_later_start_is_refused(tmp_path):
    pipe, call = stable_diffusion_image()
    process = FewStepScheduler.from_config(pipe.scheduler.config).formulation.process
    grid = fs.grids.karras(process, 4, end="zero")
    recipe = fs.calibrate(lambda x, t: 0.5 * torch.tanh(x), fs.UniPC(2), grid, torch.randn(8, 16), num=8)
    path = tmp_path / "recipe.json"
    recipe.save(path)
    fs.enable(pipe, recipe=path)
    with pytest.raises(InputError, match="leave timesteps, sigmas and strength out"):
        run(pipe, call, 4)


def test_a_recipe_of_no_diffusers_process_needs_the_configuration(tmp_path):
    grid = fs.grids.karras(fs.processes.VPLinear(), 3, end="zero")
    recipe = fs.calibrate(lambda x, t: 0.5 * torch.tanh(x), fs.UniPC(2), grid, torch.randn(8, 16), num=8)
    path = tmp_path / "recipe.json"
    recipe.save(path)
    with pytest.raises(InputError, match="pipe.scheduler.config"):
        FewStepScheduler.from_recipe(path)


def test_a_formula_comes_after_the_last_call(ended):
    """The pipeline makes as many calls as before, and its last step the formula's sample."""
    pipe, path, model = ended
    fresh = diffusers.DDPMPipeline(pipe.unet, FewStepScheduler.from_recipe(path, pipe.scheduler.config))
    assert_expected(run(fresh, {"batch_size": 2}, STEPS), path, model)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    exact, scheduler = fs.execute(fs.load_recipe(path), model, x), fresh.scheduler
    scheduler.set_timesteps(STEPS)
    for t in scheduler.timesteps:
        with torch.no_grad():
            out = pipe.unet(scheduler.scale_model_input(x, t), t).sample
        scheduler = pickle.loads(pickle.dumps(scheduler))
        x = scheduler.step(out, t, x).prev_sample
    torch.testing.assert_close(x, exact, rtol=0, atol=1e-4)


def test_nothing_waits_in_the_step_of_the_last_formula(ended):
    pipe, path, _ = ended
    scheduler = FewStepScheduler.from_recipe(path, pipe.scheduler.config)
    scheduler.set_timesteps(STEPS)
    x = torch.zeros(2, 3, 8, 8)
    x = scheduler.step(x, scheduler.timesteps[0], x).prev_sample
    for t in scheduler.timesteps[1:]:
        with without_waiting(x.device):
            x = scheduler.step(x, t, x).prev_sample


@pytest.mark.parametrize("analytic", [0, 1])
def test_a_pipeline_of_one_step_gets_the_recipes_sample(analytic, tmp_path):
    """Such pipelines take for the sample what a scheduler returns as x0."""
    pipe, path, model = made("v_prediction", analytic, tmp_path, steps=1)
    scheduler = FewStepScheduler.from_recipe(path, pipe.scheduler.config)
    scheduler.set_timesteps(1)
    x, t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), scheduler.timesteps[0]
    with torch.no_grad():
        out = pipe.unet(scheduler.scale_model_input(x, t), t).sample
    for found in scheduler.step(out, t, x, return_dict=False):
        torch.testing.assert_close(found, fs.execute(fs.load_recipe(path), model, x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("place", [0, -1])
def test_formulas_of_classes_are_refused_before_the_first_step(place, ended, tmp_path):
    pipe, path, _ = ended
    recipe = fs.load_recipe(path)
    of_classes = AnalyticPrediction(torch.ones(1), torch.zeros(10, 3, 8, 8), by_class=True)
    formulas, evaluate = list(recipe.plan.analytic), recipe.plan.evaluate.clone()
    formulas[place], evaluate[place] = of_classes, False
    path = tmp_path / "recipe.json"
    replace(recipe, plan=replace(recipe.plan, analytic=tuple(formulas), evaluate=evaluate)).save(path)
    scheduler = FewStepScheduler.from_recipe(path, pipe.scheduler.config)
    with pytest.raises(InputError, match="a mean for each class"):
        scheduler.set_timesteps(scheduler.solver.recipe.plan.nfe)


def test_a_last_formula_of_another_size_is_refused_in_the_first_step(ended):
    pipe, path, _ = ended
    scheduler = FewStepScheduler.from_recipe(path, pipe.scheduler.config)
    scheduler.set_timesteps(STEPS)
    x = torch.zeros(1, 3, 16, 16)
    with pytest.raises(InputError, match="at the size that it was made for"):
        scheduler.step(x, scheduler.timesteps[0], x)


def test_formulas_come_before_the_first_call(led):
    """The scheduler has a timestep for each network call, and hands the network the state after the formulas."""
    pipe, path, model = led
    plan = fs.load_recipe(path).plan
    scheduler = FewStepScheduler.from_recipe(path, pipe.scheduler.config)
    scheduler.set_timesteps(STEPS)
    assert len(scheduler.timesteps) == STEPS and len(scheduler.sigmas) == STEPS + 1
    fed = 1000 * plan.call_times - 1
    torch.testing.assert_close(scheduler.timesteps.double(), fed, rtol=0, atol=1e-3)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    points = []
    fs.execute(plan, lambda x_t, t: points.append(x_t.clone()) or model(x_t, t), x)
    given = scheduler.scale_model_input(x, scheduler.timesteps[0])
    torch.testing.assert_close(given, points[0], rtol=0, atol=1e-5)
    for t in scheduler.timesteps:
        with torch.no_grad():
            out = pipe.unet(scheduler.scale_model_input(x, t), t).sample
        x = scheduler.step(out, t, x).prev_sample
    exact = fs.execute(plan, model, torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(x, exact, rtol=0, atol=1e-4)
    scheduler.set_timesteps(STEPS)
    with pytest.raises(InputError, match="calibrate with analytic='last'"):
        scheduler.step(x, scheduler.timesteps[0], x)


def assert_followed_in_half_precision(pipe, path, model):
    scheduler = FewStepScheduler.from_recipe(path, pipe.scheduler.config)
    scheduler.set_timesteps(STEPS)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).half()
    exact = fs.execute(fs.load_recipe(path), model, x.float())
    for t in scheduler.timesteps:
        given = scheduler.scale_model_input(x, t).float()
        with torch.no_grad():
            out = pipe.unet(given, t).sample
        x = scheduler.step(out.half(), t, x).prev_sample
    # The state is rounded to half precision before each call, the output after it: each at most once a step.
    size = float(exact.abs().max()) + 3.0
    assert float((x.float() - exact).abs().max()) < 8 * STEPS * size * torch.finfo(torch.float16).eps


def test_half_precision_latents_follow_formulas_before_the_first_call(led):
    assert_followed_in_half_precision(*led)


def test_half_precision_latents_follow_a_formula_after_the_last_call(ended):
    assert_followed_in_half_precision(*ended)


def test_a_book_of_recipes_takes_any_of_its_steps(calibrated, tmp_path):
    pipe, path, model = calibrated
    grid = fs.grids.karras(model.process, 2, end="zero")
    settings = {"num": 8, "reference_steps": 12, "objective": "local", "analytic": 0}
    book = RecipeBook((fs.load_recipe(path), fs.calibrate(model, fs.UniPC(2), grid, **settings)))
    book.save(tmp_path / "book.json")
    for steps in (2, STEPS):
        fs.enable(pipe, steps=steps, recipe=tmp_path / "book.json")
        try:
            made = run(pipe, {"batch_size": 2}, steps)
        finally:
            fs.disable(pipe)
        if steps == STEPS:
            assert_expected(made, path, model)
    for steps in (None, 5):
        with pytest.raises(InputError, match="one of 2, 3|take one of 2, 3"):
            fs.enable(pipe, steps=steps, recipe=book)

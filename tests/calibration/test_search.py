"""The search for a grid: what it tries, where it ends, and where one more formula goes."""

from __future__ import annotations

import pytest
import torch
from support.calibration import PLAIN, PROCESS, PROCESSES, Predictor, noises
from support.exact import GaussianMixture

import fewstep as fs
from fewstep.calibration.interior_times import InteriorTimes
from fewstep.calibration.search import with_one_more
from fewstep.errors import InputError


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
@pytest.mark.parametrize("end", ["zero", None])
@pytest.mark.parametrize("formulas", [0, 1, 2])
def test_one_more_formula_comes_halfway_to_the_first_call(process, end, formulas):
    grid = fs.grids.uniform_logsnr(process, 5, end=end)
    placement = InteriorTimes(grid, float(grid.half_logsnr[-2]))
    longer = with_one_more(grid, formulas, placement)
    assert longer.steps == 6
    place = max(formulas - 1, 0)
    kept = [*range(place + 1), *range(place + 2, 7)]
    torch.testing.assert_close(longer.times[kept], grid.times, rtol=1e-12, atol=1e-15)
    level = longer.half_logsnr.clone()
    level[0] = placement.lowest
    torch.testing.assert_close(level[place + 1], level[[place, place + 2]].mean(), rtol=0, atol=1e-9)


def test_where_there_is_no_room_there_is_none():
    grid = fs.grids.uniform_logsnr(PROCESSES[0], 1, end="zero")
    assert with_one_more(grid, 1, InteriorTimes(grid, 4.0)) is None
    times = PROCESSES[0].time(torch.tensor([-2.0, -1.96, 1.0], dtype=torch.float64))
    close = fs.TimeGrid(PROCESSES[0], torch.cat([times, torch.zeros(1, dtype=torch.float64)]))
    assert with_one_more(close, 1, InteriorTimes(close, 4.0)) is None


def test_a_search_beats_every_grid_that_it_starts_from():
    grid = fs.grids.uniform_logsnr(PROCESS, 5, end="zero")
    model = GaussianMixture.example(PROCESS)
    x_T = noises(grid, 128)
    settings = {"num": 128, "batch_size": 128, "reference_steps": 60, **PLAIN}
    alone = fs.calibrate(model, fs.UniPC(2), grid, x_T, **settings)
    recipe = fs.calibrate(model, fs.UniPC(2), grid, x_T, **settings, search=True, budget=25_000)
    assert recipe.report.after < 0.7 * alone.report.after
    assert recipe.plan.times[0] == grid.times[0] and recipe.plan.times[-1] == 0.0 and recipe.plan.nfe == 5
    names = [name for name, _ in recipe.report.tried]
    assert {"given", "karras", "quadratic_time", "optimized, error_power=1"} <= set(names)
    assert [error for _, error in recipe.report.tried] == sorted(error for _, error in recipe.report.tried)


def test_after_a_search_a_fit_must_be_better_than_the_best_plan_without_one():
    grid = fs.grids.uniform_time(PROCESS, 30, end="zero")
    x_T, settings = noises(grid, 32), {"num": 32, "reference_steps": 60, "objective": "local", **PLAIN}
    model = GaussianMixture.example(PROCESS)
    alone = fs.calibrate(model, fs.Euler(), grid, x_T, **settings)
    searched = fs.calibrate(model, fs.Euler(), grid, x_T, **settings, search=True, budget=0)
    assert searched.report.before < 0.5 * alone.report.before
    assert searched.report.after <= searched.report.before
    assert searched.report.kept == "base" and "Euler" not in searched.plan.solver


def test_a_search_between_fixed_ends_keeps_them():
    grid = fs.grids.uniform_time(PROCESS, 4)
    settings = {"search": True, "budget": 4_000, "reference_steps": 40, **PLAIN}
    recipe = fs.calibrate(GaussianMixture.example(PROCESS), fs.UniPC(2), grid, noises(grid), **settings)
    assert recipe.plan.times[0] == grid.times[0] and recipe.plan.times[-1] == grid.times[-1] and recipe.plan.nfe == 4
    assert recipe.report.gain > 1.0


def test_the_budget_ends_a_search():
    grid = fs.grids.uniform_logsnr(PROCESS, 6, end="zero")
    model = GaussianMixture.example(PROCESS)
    small = fs.calibrate(model, fs.UniPC(2), grid, noises(grid), search=True, budget=1, objective="local", analytic=0)
    unfitted = 4 * 64 * 6  # The given plan, and three for the spectrum.
    assert small.report.calls < 64 * 100 + 3 * 64 * 6 + unfitted
    assert torch.equal(small.plan.times, grid.times)


@pytest.mark.parametrize("width", [0.5, 0.001], ids=["found before", "found in the search"])
def test_a_search_fits_no_plan_that_adds_noise(width):
    grid = fs.TimeGrid(fs.processes.EDM(), [80.0, 20.0, 5.0, 1.0, 0.2, 0.0])
    middle = fs.grids.karras(fs.processes.EDM(), 5).times[2].item()
    solver = fs.SASolver(2, 2, tau=fs.tau.window(1.0, middle * (1 - width), middle * (1 + width)), few_step=True)
    assert not solver.plan(grid).stochastic
    fs.calibrate(Predictor(fs.processes.EDM()), solver, grid, num=8)
    with pytest.raises(InputError, match="adds noise from t = .*deterministic"):
        fs.calibrate(Predictor(fs.processes.EDM()), solver, grid, num=8, search=True)


@pytest.mark.parametrize(
    ("process", "times"),
    [
        (fs.processes.EDM(), [80.0, 20.0, 5.0, 1.0, 0.98, 0.2, 0.0]),
        (fs.processes.RectifiedFlow(), [1.0, 0.9995, 0.8, 0.5, 0.2, 0.0]),
    ],
    ids=str,
)
def test_a_grid_whose_times_the_search_may_not_move_is_fitted_where_it_is(process, times):
    grid = fs.TimeGrid(process, times)
    recipe = fs.calibrate(Predictor(process), fs.UniPC(2), grid, num=16, search=True, budget=1)
    assert torch.equal(recipe.plan.times, grid.times) and recipe.report.tried[0][0] == "given"


def test_a_search_without_budget_tries_the_given_grid_alone():
    grid = fs.grids.karras(PROCESS, 4)
    assert len(fs.calibrate(Predictor(PROCESS), fs.UniPC(2), grid, num=8, search=True, budget=0).report.tried) == 1

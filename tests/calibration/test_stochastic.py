"""Fits of SA-Solver's noise, ``objective="distribution"``."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch
from support.rounding import by_rows, effect

import fewstep as fs
from fewstep.calibration.network import CountedNetwork
from fewstep.calibration.noises import seeds_for
from fewstep.calibration.student import Student
from fewstep.calibration.tau_problem import TauTables, noise_of
from fewstep.errors import InputError
from fewstep.metrics import Moments
from fewstep.solvers.tau import as_tau
from fewstep.spectra.gaussian import exact_std, response

PROCESS = fs.processes.VPLinear()
GRID = fs.grids.uniform_time(PROCESS, 5, end=0.0)
STD = torch.tensor([0.05, 0.3, 0.6, 1.0, 1.5], dtype=torch.float64)
SOLVER = fs.SASolver(2, 2, tau=0.5, few_step=True)


class GaussianModes(fs.DataPredictor):
    """Independent normal values of known standard deviations."""

    process, shape, num_classes = PROCESS, (len(STD),), None

    def __call__(self, x_t, t, cond=None):
        alpha, sigma = PROCESS.alpha(t), PROCESS.sigma(t)
        return (x_t.double() * (alpha * STD**2 / (alpha**2 * STD**2 + sigma**2))).to(x_t.dtype)


MODEL = GaussianModes()
SETTINGS = {"num": 256, "reference_steps": 20, "batch_size": 256, "objective": "distribution"}


def features(samples):
    return samples


def target():
    """The data's own moments."""
    half = torch.cat([torch.diag(STD), -torch.diag(STD)]) * (len(STD) - 0.5) ** 0.5
    return Moments().update(half)


def calibrated(solver=SOLVER, grid=GRID, **settings):
    return fs.calibrate(MODEL, solver, grid, **{**SETTINGS, "features": features, "target": target(), **settings})


@cache
def fitted():
    return calibrated()


def exact_distance(plan):
    """The Fréchet distance of a plan's samples to the data, without drawing any."""
    start = exact_std(plan, STD**2)[0]
    return float((response(plan, STD**2).std(start) - STD).square().sum())


def test_the_target_is_that_of_the_data():
    torch.testing.assert_close(target().covariance, torch.diag(STD**2))


def test_the_distance_is_below_that_of_every_constant():
    constant = [exact_distance(fs.SASolver(2, 2, tau=tau / 20, few_step=True).plan(GRID)) for tau in range(31)]
    recipe = fitted()
    assert recipe.plan.stochastic and recipe.plan.fitted and recipe.plan.nfe == GRID.steps
    assert exact_distance(recipe.plan) < 0.5 * min(constant)
    report = recipe.report
    assert report.kept == "fitted" and report.gain_low > 1.0 and report.quantiles_after is None and not report.worst
    assert str(report).startswith("Fréchet distance to the target") and "median" not in str(report)
    assert {name for name, _ in report.tried} == {"given", "tau=0.0", "tau=0.4", "tau=0.7", "tau=1.0"}


def test_without_a_target_it_is_the_solutions():
    recipe = calibrated(target=None)
    assert exact_distance(recipe.plan) < exact_distance(SOLVER.plan(GRID))
    assert str(recipe.report).startswith("Fréchet distance to the solution")


def test_tau_is_not_negative_and_in_the_plans_name():
    plan = fitted().plan
    numbers = re.search(r"tau=\((.*?)\)", plan.solver)
    tau = [float(number) for number in numbers[1].split(",")]
    assert len(tau) == GRID.steps and min(tau[:-1]) > 0.0 and tau[-1] == 0.0
    own = fs.SASolver(2, 2, tau=tau, few_step=True).plan(GRID)
    # Predictor and corrector share noise; the plan has one row for both.
    assert torch.equal(plan.noise_scale, own.noise_scale[own.interval.diff(prepend=torch.tensor([-1])) > 0])


def test_the_same_seeds_give_the_same_plan_in_any_batch():
    again, apart = calibrated(), calibrated(batch_size=50)
    for other in (again, apart):
        assert other.plan.to_json() == fitted().plan.to_json()
    assert calibrated(seeds=range(256)).plan.to_json() != fitted().plan.to_json()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_executor_draws_what_the_fit_saw(dtype):
    tables, which = TauTables(SOLVER, GRID, 4), torch.tensor([0, 3, 2])
    seeds = [seeds_for(None, 8)[i] for i in which]
    table = tables.at(torch.tensor([0.3, 1e-9, 1.7, 0.0], dtype=torch.float64))
    x_T = fs.initial_state(GRID, MODEL.shape, seeds, dtype=dtype)
    noise = noise_of(table.plan, x_T, seeds)
    seen = Student(which, x_T, noise=noise).run(CountedNetwork(MODEL, None, 8, 2), table).state
    made = fs.execute(table.finished(), MODEL, x_T, seeds=seeds)
    drawn = [torch.zeros_like(x_T) if one is None else one for one in noise]
    atol = effect(lambda rounded: by_rows(table.plan, MODEL, x_T, drawn, rounded), dtype)
    torch.testing.assert_close(seen, made, rtol=0.0, atol=atol)


def test_noise_may_go_where_the_solver_gives_some():
    assert TauTables(SOLVER, GRID, 4).free == [0, 1, 2, 3]  # The few-step form ends without.
    assert TauTables(fs.SASolver(2, 0), fs.grids.uniform_time(PROCESS, 5), 4).free == [0, 1, 2, 3, 4]
    assert TauTables(fs.SASolver(2, 0), GRID, 4).free == [0, 1, 2, 3]  # None is left at the noise-free end.
    assert torch.equal(TauTables(SOLVER, GRID, 4).squares(as_tau((0.5, 1, 2, 3, 4))), torch.tensor([0.25, 1, 4, 9.0]))


def test_a_recipe_survives_json_and_runs_alike(tmp_path):
    recipe, seeds = fitted(), range(4)
    recipe.save(tmp_path / "recipe.json")
    again = fs.load_recipe(tmp_path / "recipe.json")
    assert again.to_json() == recipe.to_json()
    x_T = fs.initial_state(GRID, MODEL.shape, seeds)
    made = [fs.execute(one, MODEL, x_T, seeds=seeds) for one in (recipe, again)]
    assert torch.equal(*made)


def test_where_nothing_is_gained_the_solvers_plan_comes_back():
    """Of eight samples little can be said."""
    grid, solver = fs.grids.uniform_time(PROCESS, 12, end=0.0), fs.SASolver(2, 2, tau=0.1, few_step=True)
    recipe = calibrated(solver, grid, num=8, reference_steps=24, history=1)
    assert recipe.report.kept == "base" and recipe.report.gain == 1.0
    assert recipe.plan.to_json() == solver.plan(grid).to_json()


def test_a_book_of_stochastic_plans():
    book = calibrated(steps=(3, 5), num=64)
    assert book.calls == (3, 5)
    assert book[5].plan.times.tolist() == GRID.times.tolist()


CASES = {
    "another objective": ({"objective": "features", "target": None}, "adds noise.*objective='distribution'"),
    "search": ({"search": True}, "search, analytic and loss are for solvers that add no noise"),
    "analytic": ({"analytic": 1}, "search, analytic and loss"),
    "loss": ({"loss": "root"}, "search, analytic and loss"),
    "another solver": ({"solver": fs.DDIM(eta=1.0)}, "DDIM adds noise: that of each step is fitted for SASolver alone"),
    "another call": ({"solver": fs.SASolver(2, 2, tau=0.5)}, "6 calls in 5 steps"),
    "other steps": ({"solver": fs.SASolver(2, 2, tau=(0.5,) * 4, few_step=True)}, "tau has length 4"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_fitted_is_said(name):
    changed, message = CASES[name]
    with pytest.raises(InputError, match=message):
        calibrated(**changed)


def test_zero_analytic_is_what_auto_means():
    assert calibrated(analytic=0, num=16).plan.to_json() == calibrated(num=16).plan.to_json()

"""The stages of a calibration: candidates, what is held out, books, calls counted."""

from __future__ import annotations

import pytest
import torch
from support.calibration import PLAIN, PROCESS, Predictor, noises
from support.exact import GaussianMixture

import fewstep as fs
from fewstep.analytic import AnalyticPrediction, radial_bands
from fewstep.errors import InputError


def test_a_book_has_a_recipe_for_each_number_of_calls():
    grid = fs.grids.karras(PROCESS, 4, end="zero")
    model = GaussianMixture.example(PROCESS)
    book = fs.calibrate(model, fs.UniPC(2), grid, noises(grid), steps=(5, 3), **PLAIN)
    assert book.calls == (3, 5)
    assert [book[n].plan.nfe for n in book.calls] == [3, 5]
    alone = fs.calibrate(model, fs.UniPC(2), book[5].plan.grid, noises(grid), reference_steps=100, **PLAIN)
    assert book[5].report.calls < 64 * 100 + alone.report.calls  # One reference for both.
    with pytest.raises(InputError, match="no recipe of 4 calls: take one of 3, 5"):
        book[4]


@pytest.mark.parametrize(("steps", "held_out"), [(8, 4), (10, 16)])
def test_more_noises_are_held_out_where_the_gain_is_in_doubt(steps, held_out):
    """At 8 steps all four noises gain much; at 10 some lose, and twelve more are asked."""
    grid = fs.grids.uniform_logsnr(PROCESS, steps, end="zero")
    settings = {"num": 16, "objective": "local", "history": 4, "reference_steps": 60, **PLAIN}
    report = fs.calibrate(Predictor(PROCESS), fs.UniPC(3), grid, **settings).report
    assert report.held_out == held_out and report.kept == "fitted" and report.gain_low > 1.0


def test_progress_of_a_book_says_which_recipe():
    told, grid = [], fs.grids.karras(PROCESS, 3, end="zero")
    fs.calibrate(
        Predictor(PROCESS), fs.UniPC(2), grid, steps=[2, 3], num=8, progress=lambda *args: told.append(args[0])
    )
    assert told[0] == "reference" and {stage[:9] for stage in told[1:]} == {"2 calls: ", "3 calls: "}


def test_last_tries_a_formula_after_the_last_row_alone():
    """On data with a spectrum of its own it is kept, for either objective; the first predictions are the network's."""
    variance = 0.5 ** torch.arange(int(radial_bands((4, 6)).max()) + 1, dtype=torch.float64)

    def denoiser(x, t):
        alpha, sigma = float(PROCESS.alpha(t)), float(PROCESS.sigma(t))
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        return AnalyticPrediction(gain, torch.zeros(())).bound(x)(x)

    grid = fs.grids.uniform_logsnr(PROCESS, 3, end="zero")
    x_T = torch.randn(32, 1, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = {}
    for objective in ("local", "final"):
        settings = {"num": 32, "objective": objective, "loss": "square", "reference_steps": 40}
        for analytic in ("last", 0):
            recipe = fs.calibrate(denoiser, fs.UniPC(2), grid, x_T, analytic=analytic, **settings)
            found[objective, analytic] = recipe.report.after
            assert recipe.plan.nfe == recipe.plan.steps == 3
            formulas = [formula is not None for formula in recipe.plan.analytic]
            assert formulas == ([False, False, False, True] if analytic else [])
            assert recipe.report.settings["chosen"]["last"] == ("bands" if analytic else "none")
        assert found[objective, "last"] < 0.01 * found[objective, 0]


def test_rows_over_noise_predictions_spend_no_calls_on_a_last_formula():
    model = GaussianMixture.example(PROCESS)
    grid = fs.grids.karras(PROCESS, 5, end="zero")
    recipe = fs.calibrate(model, fs.DEIS(2), grid, noises(grid), objective="local", reference_steps=80)
    starts = 4  # With 0 to 3 formulas before the first call.
    assert recipe.report.calls == 64 * 80 + (starts + 1) * 48 * 5 + 2 * 16 * 5
    assert recipe.report.settings["chosen"]["last"] == "none"


def test_where_the_fit_is_worse_the_solvers_own_plan_comes_back():
    grid = fs.grids.uniform_logsnr(PROCESS, 60, end="zero")
    # A reference as long as this grid is no better than it: there is nothing to learn.
    settings = {"num": 8, "reference_steps": 120, "objective": "local"}
    recipe = fs.calibrate(GaussianMixture.example(PROCESS), fs.UniPC(3), grid, noises(grid, 8), **settings)
    own = fs.UniPC(3).plan(grid)
    assert recipe.report.kept == "base" and recipe.report.gain == 1.0 and not recipe.plan.fitted
    assert torch.equal(recipe.plan.history_weights, own.history_weights)


def test_calls_are_those_of_reference_and_rows():
    model = GaussianMixture.example(PROCESS)
    grid = fs.grids.karras(PROCESS, 5, end="zero")
    settings = {"objective": "local", "reference_steps": 80, "analytic": 0}
    recipe = fs.calibrate(model, fs.UniPC(2), grid, noises(grid), **settings)
    assert recipe.report.calls == 64 * (80 + 5) + 16 * 5
    assert recipe.report.num == 64 and recipe.report.held_out == 16


def test_progress_is_told():
    grid = fs.grids.karras(PROCESS, 4, end="zero")
    told = []
    fs.calibrate(Predictor(PROCESS), fs.UniPC(2), grid, num=8, progress=lambda *args: told.append(args))
    assert [stage for stage, _, _ in told][:2] == ["reference", "rows"]
    calls = [c for _, c, _ in told]
    assert calls == sorted(calls)


def test_features_are_what_final_samples_are_compared_in():
    grid = fs.grids.karras(PROCESS, 4, end="zero")
    model = GaussianMixture.example(PROCESS)
    x_T = noises(grid)
    exact = fs.sample(model, fs.UniPC(3), fs.grids.uniform_logsnr(PROCESS, 400, end="zero"), x_T)
    plain, first = (
        fs.calibrate(model, fs.UniPC(2), grid, x_T, **asked, **PLAIN)
        for asked in ({}, {"objective": "features", "features": lambda x: x[:, :1]})
    )
    error = [float((fs.execute(p, model, x_T) - exact)[:48, 0].square().mean()) for p in (plain, first)]
    assert error[1] < error[0]


def test_features_with_parameters_leave_no_graph():
    grid = fs.grids.karras(PROCESS, 4)
    recipe = fs.calibrate(
        Predictor(PROCESS), fs.UniPC(2), grid, num=8, objective="features", features=torch.nn.Linear(2, 3)
    )
    assert not recipe.plan.state_weight.requires_grad and not recipe.plan.history_weights.requires_grad

from __future__ import annotations

import gc
import importlib
import weakref
from dataclasses import replace

import pytest
import torch
from support.exact import Gaussian, GaussianMixture
from support.rounding import ridge_rounding

import fewstep as fs
from fewstep.analytic import AnalyticPrediction, radial_bands
from fewstep.calibration.least_squares import total, weights
from fewstep.calibration.network import CountedNetwork
from fewstep.calibration.reference import Reference
from fewstep.calibration.rows import RIDGES
from fewstep.denoiser import network_device
from fewstep.errors import InputError, NonFiniteStateError
from fewstep.executor import folded
from fewstep.guidance import ClassifierFree

PROCESSES = [
    fs.processes.VPLinear(),
    fs.processes.VPDiscrete.from_betas(),
    fs.processes.EDM(),
    fs.processes.RectifiedFlow(),
]
PROCESS = PROCESSES[0]
PLAIN = {"analytic": 0, "loss": "square"}


class Predictor(fs.DataPredictor):
    """The example mixture as a denoiser of known shape, with classes that shift it."""

    def __init__(self, process, num_classes=None, dtype=torch.float32):
        self.process, self.shape, self.num_classes = process, (2,), num_classes
        self.mixture = GaussianMixture.example(process)
        self.seen = []

    def __call__(self, x_t, t, cond=None):
        self.seen.append(cond)
        shift = 0.0 if cond is None else 0.1 * cond[:, None]
        return self.mixture(x_t.double() - shift, t).to(x_t.dtype) + shift


def noises(grid, num=64, dims=2):
    generator = torch.Generator().manual_seed(5)
    return float(grid.sigma[0]) * torch.randn(num, dims, dtype=torch.float64, generator=generator)


def rmse(plan, denoiser, x_T, exact):
    return float((fs.execute(plan, denoiser, x_T) - exact).square().mean().sqrt())


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
@pytest.mark.parametrize("objective", ["local", "final"])
def test_an_affine_model_is_sampled_to_rounding(process, objective):
    model = Gaussian(process, 0.4, 0.6)

    def denoiser(x, t):
        gain, offset = model.affine(float(t))
        return gain * x + offset

    grid = fs.grids.uniform_logsnr(process, 5, end="zero")
    recipe = fs.calibrate(denoiser, fs.UniPC(2), grid, noises(grid), objective=objective, **PLAIN)
    assert recipe.report.before > 1e-3
    assert recipe.report.after < grid.steps * ridge_rounding(1 + 4, RIDGES[0]) * recipe.report.before
    # The reference is the model's own solution: 100 steps of order 3.
    mean, variance = model.moments(float(grid.times[0]))
    x_T = noises(grid, 8)
    exact = 0.4 + (x_T - mean) * (0.6 / variance**0.5)
    assert rmse(recipe, denoiser, x_T, exact) < 2e-3 * recipe.report.before


@pytest.mark.parametrize(
    "solver",
    [fs.Euler(), fs.UniPC(3), fs.DPMSolverPP(2), fs.DEIS(3), fs.SASolver(2, 2, tau=0.0, few_step=True)],
    ids=repr,
)
@pytest.mark.parametrize("steps", [1, 3, 6])
def test_a_mixture_is_never_worse(solver, steps):
    grid = fs.grids.karras(PROCESS, steps, end="zero")
    model = GaussianMixture.example(PROCESS)
    recipe = fs.calibrate(model, solver, grid, noises(grid), **PLAIN)
    assert recipe.plan.nfe == steps
    assert recipe.report.after <= recipe.report.before
    assert recipe.report.gain >= 1.0
    held_out = noises(grid)[48:]
    network_end = recipe.report.after
    exact = fs.sample(model, fs.UniPC(3), fs.grids.uniform_logsnr(PROCESS, 800, end="zero"), held_out)
    assert rmse(recipe, model, held_out, exact) == pytest.approx(network_end, rel=0.02, abs=1e-4)


def test_where_the_fit_is_worse_the_solvers_own_plan_comes_back():
    grid = fs.grids.uniform_logsnr(PROCESS, 60, end="zero")
    model = GaussianMixture.example(PROCESS)
    # A reference as long as this grid is no better than it: there is nothing to learn.
    settings = {"num": 8, "reference_steps": 120, "objective": "local"}
    for recipe in [fs.calibrate(model, fs.UniPC(3), grid, noises(grid, 8), **settings)]:
        if recipe.report.kept == "base":
            own = fs.UniPC(3).plan(grid)
            assert torch.equal(recipe.plan.history_weights, own.history_weights)
            assert recipe.report.gain == 1.0 and not recipe.plan.fitted


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
    if searched.report.kept == "base":
        assert "Euler" not in searched.plan.solver


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


def test_calls_are_those_of_reference_and_rows():
    model = GaussianMixture.example(PROCESS)
    grid = fs.grids.karras(PROCESS, 5, end="zero")
    settings = {"objective": "local", "reference_steps": 80, "analytic": 0}
    recipe = fs.calibrate(model, fs.UniPC(2), grid, noises(grid), **settings)
    assert recipe.report.calls == 64 * (80 + 5) + 16 * 5
    assert recipe.report.num == 64 and recipe.report.held_out == 16


def test_rows_over_noise_predictions_spend_no_calls_on_a_last_formula():
    model = GaussianMixture.example(PROCESS)
    grid = fs.grids.karras(PROCESS, 5, end="zero")
    recipe = fs.calibrate(model, fs.DEIS(2), grid, noises(grid), objective="local", reference_steps=80)
    starts = 4  # With 0 to 3 formulas before the first call.
    assert recipe.report.calls == 64 * 80 + (starts + 1) * 48 * 5 + 2 * 16 * 5
    assert recipe.report.settings["chosen"]["last"] == "none"


@pytest.mark.parametrize(
    "settings", [PLAIN, {}, {"search": True, "budget": 3000, **PLAIN}], ids=["given grid", "analytic", "search"]
)
def test_the_batch_size_changes_nothing(settings):
    plans = [
        fs.calibrate(
            Predictor(PROCESS, 4),
            fs.UniPC(2),
            fs.grids.karras(PROCESS, 4, end="zero"),
            num=24,
            batch_size=size,
            **settings,
        )
        for size in (24, 7)
    ]
    for name in ("times", "state_weight", "history_weights"):
        assert torch.equal(getattr(plans[0].plan, name), getattr(plans[1].plan, name)), name
    assert plans[0].report.after == plans[1].report.after


def test_seeds_decide_the_plan():
    grid = fs.grids.karras(PROCESS, 4, end="zero")
    first, again, other = (
        fs.calibrate(Predictor(PROCESS), fs.UniPC(2), grid, num=16, seeds=seeds)
        for seeds in (range(16), range(16), range(16, 32))
    )
    assert torch.equal(first.plan.history_weights, again.plan.history_weights)
    assert not torch.equal(first.plan.history_weights, other.plan.history_weights)


def test_classes_are_taken_in_turn_unless_told():
    grid = fs.grids.karras(PROCESS, 3, end="zero")
    model = Predictor(PROCESS, 3)
    fs.calibrate(model, fs.UniPC(2), grid, num=8, batch_size=8, objective="local")
    assert model.seen[0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    model = Predictor(PROCESS, 3)
    fs.calibrate(model, fs.UniPC(2), grid, num=8, objective="local", cond="none")
    assert model.seen[0] is None
    model = Predictor(PROCESS, 3)
    fs.calibrate(model, fs.UniPC(2), grid, num=8, objective="local", cond=[2] * 8, batch_size=5)
    assert {tuple(cond.tolist()) for cond in model.seen} == {(2,) * 5, (2,) * 3, (2,) * 2, (2,)}


def test_nested_conditions_are_split_with_the_noises():
    grid = fs.grids.karras(PROCESS, 3, end="zero")
    mixture = GaussianMixture.example(PROCESS)
    shift = 0.1 * torch.arange(8, dtype=torch.float64)[:, None]

    def nested(x, t, cond):
        return mixture(x - cond["added"]["shift"], t) + cond["added"]["shift"] * cond["scale"]

    def flat(x, t, shift):
        return mixture(x - shift, t) + shift

    cond = {"added": {"shift": shift}, "scale": 1}
    settings = {"num": 8, "batch_size": 3, "objective": "local"}
    recipe = fs.calibrate(nested, fs.UniPC(2), grid, noises(grid, 8), cond=cond, **settings)
    other = fs.calibrate(flat, fs.UniPC(2), grid, noises(grid, 8), cond=shift, **settings)
    assert torch.equal(recipe.plan.history_weights, other.plan.history_weights)
    same = [
        fs.calibrate(nested, fs.UniPC(2), grid, noises(grid, 8), cond={"added": {"shift": one}, "scale": 1}, **settings)
        for one in (shift[3:4], shift[3:4].expand(8, 1))
    ]
    assert torch.equal(same[0].plan.history_weights, same[1].plan.history_weights)
    with pytest.raises(InputError, match="5 entries for 8 noises"):
        fs.calibrate(nested, fs.UniPC(2), grid, noises(grid, 8), cond={"added": {"shift": shift[:5]}}, num=8)


def test_a_denoiser_that_knows_no_device_is_called_where_the_noises_are():
    elsewhere = torch.empty(8, 2, device="meta")
    for unknown in (lambda x, t: x, fs.Denoiser(lambda x, t: x, PROCESS)):
        assert network_device(unknown, elsewhere) == elsewhere.device
        assert network_device(unknown, None) == network_device(unknown, torch.empty(8, 2)) == torch.device("cpu")
    known = fs.Denoiser(torch.nn.Linear(2, 2, device="meta"), PROCESS)
    assert network_device(known, torch.empty(8, 2)) == elsewhere.device
    for given in (None, torch.empty(8, 2), elsewhere):
        assert network_device(torch.nn.Linear(2, 2, device="meta"), given) == elsewhere.device
    here = fs.Denoiser(torch.nn.Linear(2, 2), PROCESS)
    for known in (here, ClassifierFree(here, 2.0, 0)):
        assert network_device(known, elsewhere) == torch.device("cpu")


def test_the_noises_device_is_what_calibrate_calls_on(monkeypatch):
    grid, asked = fs.grids.karras(PROCESS, 3), []

    class Stop(Exception):
        pass

    def solve(network, fine, x_T):
        asked.append((network.device, x_T.device))
        raise Stop

    monkeypatch.setattr(Reference, "solve", solve)
    given = noises(grid, 8)

    def device(denoiser, x_T):
        assert x_T is given
        return torch.device("meta")

    monkeypatch.setattr(importlib.import_module("fewstep.calibration.calibrate"), "network_device", device)
    with pytest.raises(Stop):
        fs.calibrate(lambda x, t: x, fs.UniPC(), grid, given, num=8)
    assert asked == [(torch.device("meta"), torch.device("cpu"))]


@pytest.mark.parametrize("width", [0.5, 0.001], ids=["found before", "found in the search"])
def test_a_search_fits_no_plan_that_adds_noise(width):
    grid = fs.TimeGrid(fs.processes.EDM(), [80.0, 20.0, 5.0, 1.0, 0.2, 0.0])
    middle = fs.grids.karras(fs.processes.EDM(), 5).times[2].item()
    solver = fs.SASolver(2, 2, tau=fs.tau.window(1.0, middle * (1 - width), middle * (1 + width)), few_step=True)
    assert not solver.plan(grid).stochastic
    fs.calibrate(Predictor(fs.processes.EDM()), solver, grid, num=8)
    with pytest.raises(InputError, match="adds noise from t = .*deterministic"):
        fs.calibrate(Predictor(fs.processes.EDM()), solver, grid, num=8, search=True)


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


def test_progress_is_told():
    grid = fs.grids.karras(PROCESS, 4, end="zero")
    told = []
    fs.calibrate(Predictor(PROCESS), fs.UniPC(2), grid, num=8, progress=lambda *args: told.append(args))
    assert [stage for stage, _, _ in told][:2] == ["reference", "rows"]
    calls = [c for _, c, _ in told]
    assert calls == sorted(calls)


def test_the_result_is_a_plan_that_samples():
    grid = fs.grids.karras(PROCESS, 4, end="zero")
    model = Predictor(PROCESS)
    recipe = fs.calibrate(model, fs.UniPC(2), grid, num=16)
    assert isinstance(recipe, fs.Recipe)
    x_T = fs.initial_state(grid, (2,), range(4))
    assert fs.execute(recipe, model, x_T).shape == (4, 2)


CASES = {
    "stochastic": (dict(solver=fs.SASolver(tau=1.0)), "adds noise.*deterministic"),
    "eta": (dict(solver=fs.DDIM(eta=0.5)), "adds noise"),
    "two calls a step": (dict(solver=fs.Heun()), "7 calls in 4 steps.*UniPC"),
    "analytic first": (dict(solver=fs.UniPC(2, analytic_first=True)), "leave analytic_first out"),
    "analytic": (dict(analytic=-1), "analytic is -1"),
    "last": (dict(analytic="last", objective="distribution", features=torch.detach), "leave it out"),
    "loss": (dict(loss="squared"), "did you mean 'square'"),
    "no solver": (dict(solver="unipc"), "solver is 'unipc'"),
    "few noises": (dict(num=4), "num is 4: give a whole number from 8"),
    "reference too short": (dict(reference_steps=5), "reference_steps is 5"),
    "history": (dict(history=0), "history is 0"),
    "objective": (dict(objective="finale"), "did you mean 'final'"),
    "features of local": (dict(objective="local", features=lambda x: x), "objective='features'"),
    "no features": (dict(objective="features"), "needs features="),
    "seeds": (dict(seeds=range(5)), "5 seeds for 16 samples"),
    "cond": (dict(cond="dog"), "cond is 'dog'"),
    "cond tensor": (dict(cond=torch.zeros(3, 2)), "3 entries for 16 noises"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_calibrated_is_said(name):
    changed, message = CASES[name]
    settings = {"solver": fs.UniPC(2), "grid": fs.grids.karras(PROCESS, 4, end="zero"), "num": 16, **changed}
    with pytest.raises(InputError, match=message):
        fs.calibrate(Predictor(PROCESS), **settings)


def test_another_process_is_refused():
    with pytest.raises(InputError, match="make the grid with the denoiser's process"):
        fs.calibrate(Predictor(PROCESS), fs.UniPC(), fs.grids.karras(fs.processes.EDM(), 4), num=8)


def test_a_denoiser_without_a_shape_needs_noises():
    grid = fs.grids.karras(PROCESS, 4, end="zero")
    model = GaussianMixture.example(PROCESS)
    with pytest.raises(InputError, match=r"give x_T \[num"):
        fs.calibrate(model, fs.UniPC(), grid)
    with pytest.raises(InputError, match="here with num = 64"):
        fs.calibrate(model, fs.UniPC(), grid, noises(grid, 32))


def test_too_few_values_for_the_fit_are_counted():
    grid = fs.grids.karras(PROCESS, 4, end="zero")
    with pytest.raises(InputError, match="num is 8 with 1 values a sample.*raise num to 14"):
        fs.calibrate(lambda x, t: x, fs.UniPC(), grid, noises(grid, 8, 1), num=8)


def test_predictions_that_are_not_finite_are_named():
    grid = fs.grids.karras(PROCESS, 4, end="zero")

    def broken(x, t):
        return x * float("nan") if float(t) < 0.05 else 0.5 * x

    with pytest.raises(NonFiniteStateError, match="not finite"):
        fs.calibrate(broken, fs.UniPC(), grid, noises(grid))


def test_predictions_of_another_shape_are_refused():
    grid = fs.grids.karras(PROCESS, 4, end="zero")
    with pytest.raises(InputError, match="must return a tensor shaped like x_t"):
        fs.calibrate(lambda x, t: x[:, :1], fs.UniPC(), grid, noises(grid))


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
    for settings in ({"budget": -1}, {"budget": 1.5}, {"num": 8.5}):
        with pytest.raises(InputError, match=next(iter(settings))):
            fs.calibrate(Predictor(PROCESS), fs.UniPC(2), grid, **{"num": 8, **settings})


def test_features_with_parameters_leave_no_graph():
    grid = fs.grids.karras(PROCESS, 4)
    recipe = fs.calibrate(
        Predictor(PROCESS), fs.UniPC(2), grid, num=8, objective="features", features=torch.nn.Linear(2, 3)
    )
    assert not recipe.plan.state_weight.requires_grad and not recipe.plan.history_weights.requires_grad


def test_the_reference_is_freed_with_the_last_that_knows_it():
    grid = fs.grids.karras(PROCESS, 20)
    reference = Reference.solve(CountedNetwork(Predictor(PROCESS), None, 2, 2), grid, noises(grid, 2))
    reference.state(float(grid.times[1]) * 0.99, torch.arange(2))
    known = weakref.ref(reference)
    gc.disable()
    try:
        del reference
        assert known() is None
    finally:
        gc.enable()


def linear(process):
    """Return the denoiser of Gaussian data of mean 0.4 and standard deviation 0.6, which counts its calls."""
    model = Gaussian(process, 0.4, 0.6)

    def denoiser(x, t):
        denoiser.calls += 1
        gain, offset = model.affine(float(t))
        return gain * x + offset

    denoiser.calls = 0
    return denoiser


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_an_affine_model_needs_fewer_calls_and_loses_nothing(process):
    grid = fs.grids.uniform_logsnr(process, 3, end="zero")
    denoiser = linear(process)
    settings = {"analytic": 2, "loss": "square", "objective": "local"}
    recipe = fs.calibrate(denoiser, fs.UniPC(2), grid, noises(grid), **settings)
    plan = recipe.plan
    assert plan.steps == 5 and plan.nfe == 3 and plan.evaluate.tolist() == [False, False, True, True, True]
    assert recipe.report.after < 1e-6  # What float32 means leave of samples near 1.
    denoiser.calls = 0
    fs.execute(recipe, denoiser, noises(grid, 4))
    assert denoiser.calls == 3


def test_formulas_of_all_predictions_sample_gaussian_data_without_a_call():
    grid = fs.grids.uniform_logsnr(PROCESS, 4, end="zero")
    model = Gaussian(PROCESS, 0.0, 0.6)
    formulas = [AnalyticPrediction.gaussian(PROCESS, t, 0.6) for t in grid.times[:-1]]
    base = folded(fs.UniPC(2).plan(grid))
    plan = replace(base, evaluate=torch.zeros(4, dtype=torch.bool), analytic=tuple(formulas))
    x_T = noises(grid)

    def denoiser(x, t):
        return model.affine(float(t))[0] * x

    def refused(x, t):
        raise AssertionError("the network was called")

    assert plan.nfe == 0
    made, called = fs.execute(plan, refused, x_T), fs.execute(base, denoiser, x_T)
    torch.testing.assert_close(made, called, rtol=0, atol=1e-13)


def test_classes_have_means_of_their_own():
    grid = fs.grids.karras(PROCESS, 3, end="zero")

    class Apart(fs.DataPredictor):
        process, shape, num_classes = PROCESS, (2,), 2

        def __call__(self, x_t, t, cond):
            gain, _ = Gaussian(PROCESS, 0.0, 0.3).affine(float(t))
            mean = 2.0 * cond[:, None].double() - 1.0
            return (mean + gain * (x_t.double() - float(PROCESS.alpha(t)) * mean)).to(x_t.dtype)

    recipe = fs.calibrate(Apart(), fs.UniPC(2), grid, num=32, analytic=1, loss="square")
    formula = recipe.plan.analytic[0]
    assert formula.by_class and formula.mean.shape == (2, 2)
    assert recipe.report.gain_low > 1.0
    with pytest.raises(InputError, match="give cond, the class of each sample"):
        fs.execute(recipe, lambda x, t: x, torch.zeros(2, 2))


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
    for wrong in ((), (3, 3), (0,), (2.5,)):
        with pytest.raises(InputError, match="steps is"):
            fs.calibrate(model, fs.UniPC(2), grid, noises(grid), steps=wrong)


def test_more_noises_are_held_out_where_the_gain_is_in_doubt():
    grid = fs.grids.uniform_logsnr(PROCESS, 40, end="zero")
    recipe = fs.calibrate(Predictor(PROCESS), fs.UniPC(3), grid, num=16, objective="local", **PLAIN)
    report = recipe.report
    assert report.held_out in (4, 16)
    assert (report.gain == 1.0) if report.kept == "base" else (report.gain_low > 1.0)


def test_the_root_loss_is_not_led_by_few_noises():
    errors = torch.tensor([1.0, 1.0, 1.0, 100.0], dtype=torch.float64)
    assert total(errors, "square") == pytest.approx(25.75) and total(errors, "root") == pytest.approx(3.25**2)
    nudged = torch.autograd.functional.jacobian(lambda e: e.sqrt().mean().square(), errors)
    torch.testing.assert_close(weights(errors, "root") / 4, nudged, rtol=1e-12, atol=0.0)


def test_progress_of_a_book_says_which_recipe():
    told, grid = [], fs.grids.karras(PROCESS, 3, end="zero")
    fs.calibrate(
        Predictor(PROCESS), fs.UniPC(2), grid, steps=[2, 3], num=8, progress=lambda *args: told.append(args[0])
    )
    assert told[0] == "reference" and {stage[:9] for stage in told[1:]} == {"2 calls: ", "3 calls: "}


def test_a_solver_that_adds_noise_is_named_and_not_printed():
    grid = fs.grids.karras(PROCESS, 3, end="zero")
    with pytest.raises(InputError, match="^SASolver adds noise from t"):
        fs.calibrate(Predictor(PROCESS), fs.SASolver(tau=1.0), grid, num=8)


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


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_a_model_that_predicts_a_constant_leaves_nothing_to_fit(value):
    """Solvers are exact on it, its predictions do not differ, and no coefficient grows from what is rounding."""
    grid = fs.grids.karras(PROCESS, 3, end="zero")
    x_T = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    recipe = fs.calibrate(lambda x, t: torch.full_like(x, value), fs.UniPC(2), grid, x_T, num=16)
    assert recipe.report.kept == "base" and recipe.report.after < 1e-6

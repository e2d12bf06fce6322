"""What calibrate gives back: exact fits, never worse ones, the same for the same seeds and any batch."""

from __future__ import annotations

import pytest
import torch
from support.calibration import PLAIN, PROCESS, PROCESSES, Predictor, noises
from support.exact import Gaussian, GaussianMixture
from support.rounding import ridge_rounding

import fewstep as fs
from fewstep.calibration.rows import RIDGES


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


def test_the_result_is_a_plan_that_samples():
    grid = fs.grids.karras(PROCESS, 4, end="zero")
    model = Predictor(PROCESS)
    recipe = fs.calibrate(model, fs.UniPC(2), grid, num=16)
    assert isinstance(recipe, fs.Recipe)
    x_T = fs.initial_state(grid, (2,), range(4))
    assert fs.execute(recipe, model, x_T).shape == (4, 2)


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_a_model_that_predicts_a_constant_leaves_nothing_to_fit(value):
    """Solvers are exact on it, its predictions do not differ, and no coefficient grows from what is rounding."""
    grid = fs.grids.karras(PROCESS, 3, end="zero")
    x_T = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    recipe = fs.calibrate(lambda x, t: torch.full_like(x, value), fs.UniPC(2), grid, x_T, num=16)
    assert recipe.report.kept == "base" and recipe.report.after < 1e-6

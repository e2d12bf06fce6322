"""Settings of a calibration that cannot be, and numbers of all types."""

from __future__ import annotations

from fractions import Fraction
from itertools import count

import numpy as np
import pytest
import torch
from support.calibration import PROCESS, Predictor, noises
from support.exact import GaussianMixture

import fewstep as fs
from fewstep.errors import InputError

CASES = {
    "stochastic": (dict(solver=fs.SASolver(tau=1.0)), "adds noise.*deterministic"),
    "eta": (dict(solver=fs.DDIM(eta=0.5)), "adds noise"),
    "two calls a step": (dict(solver=fs.Heun()), "7 calls in 4 steps.*UniPC"),
    "analytic first": (dict(solver=fs.UniPC(2, analytic_first=True)), "leave analytic_first out"),
    "analytic": (dict(analytic=-1), "analytic is -1"),
    "rows for all memory": (dict(analytic=10**9), "from 0 to 96 with reference_steps=100"),
    "half a formula": (dict(analytic=1.5), "analytic is 1.5"),
    "steps without end": (dict(steps=count(1)), "whole numbers from 1 to 5000"),
    "no steps": (dict(steps=()), "steps is"),
    "the same steps": (dict(steps=(3, 3)), "steps is"),
    "steps of none": (dict(steps=(0,)), "steps is"),
    "half a step": (dict(steps=(2.5,)), "steps is"),
    "budget": (dict(search=True, budget=-1), "budget is -1"),
    "half a call": (dict(search=True, budget=1.5), "budget is 1.5"),
    "half a noise": (dict(num=8.5), "num is 8.5"),
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


def test_a_solver_that_adds_noise_is_named_and_not_printed():
    grid = fs.grids.karras(PROCESS, 3, end="zero")
    with pytest.raises(InputError, match="^SASolver adds noise from t"):
        fs.calibrate(Predictor(PROCESS), fs.SASolver(tau=1.0), grid, num=8)


def test_a_grid_of_more_steps_than_a_reference_can_double_is_refused():
    grid = fs.grids.uniform_time(PROCESS, 5001)
    with pytest.raises(InputError, match="the grid has 5001 steps: give one of at most 5000"):
        fs.calibrate(Predictor(PROCESS), fs.UniPC(2), grid, num=8)


@pytest.mark.parametrize("kind", [np.int64, np.float32, torch.tensor, Fraction, float], ids=lambda kind: kind.__name__)
def test_a_number_of_any_type_is_the_number_that_it_means(kind):
    """The recipe is the same, and so is what is written of it."""
    grid = fs.grids.karras(PROCESS, 3, end="zero")
    settings = {"num": 12, "analytic": 1, "history": 2, "reference_steps": 20, "budget": 0, "batch_size": 8}
    plain, other = (
        fs.calibrate(Predictor(PROCESS), fs.UniPC(2), grid, steps=[n], search=True, loss="square", **chosen)
        for n, chosen in ((3, settings), (kind(3), {name: kind(value) for name, value in settings.items()}))
    )
    written = [one.to_json().partition('"seconds"')[0] for one in (plain, other)]
    assert written[0] == written[1]
    assert plain[3].report.settings == other[3].report.settings

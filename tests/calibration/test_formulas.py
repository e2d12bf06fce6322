"""Formulas fitted to a reference: what they recover, and which are worth a trial."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.calibration import PROCESS, PROCESSES, noises
from support.exact import Gaussian

import fewstep as fs
from fewstep.analytic import AnalyticPrediction, cosine_transformed, radial_bands
from fewstep.calibration.formulas import BLOCK, FORMS, PAST, FittedFormula, Formulas, forms_for
from fewstep.calibration.network import CountedNetwork
from fewstep.calibration.reference import Reference, reference_grid
from fewstep.errors import InputError
from fewstep.executor import folded

NOISES, SAMPLE = 24, (2, 4, 6)
BANDS = int(radial_bands(SAMPLE[1:]).max()) + 1


def gaussian_formula(t):
    """The exact data prediction of Gaussian data, of more variance in the sum of two channels than between them.

    α·Σ·(α²·Σ + σ²)⁻¹ with a covariance Σ of the channels in each band.
    """
    alpha, sigma = float(PROCESS.alpha(t)), float(PROCESS.sigma(t))
    fall = 1.0 / (1.0 + torch.arange(BANDS, dtype=torch.float64)) ** 2
    alike = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    covariance = fall[:, None, None] * alike
    gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(2, dtype=torch.float64))
    return AnalyticPrediction(gain, torch.zeros(()))


@pytest.fixture(scope="module")
def reference():
    def denoiser(x, t):
        return gaussian_formula(t).bound(x)(x)

    grid = fs.grids.uniform_logsnr(PROCESS, 5, end="zero")
    x_T = torch.randn(NOISES, *SAMPLE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return Reference.solve(CountedNetwork(denoiser, None, NOISES, 8), reference_grid(grid, 20), x_T)


def test_matrices_of_the_channels_recover_a_gaussian_denoiser(reference):
    t = float(PROCESS.time(-1.5))
    which = torch.arange(NOISES)
    missed = {form: Formulas(reference, which, form, 1).error(t) for form in ("mean", "bands", "channel bands")}
    assert missed["channel bands"] < 1e-6 * missed["bands"] < 1e-6 * missed["mean"]
    made = Formulas(reference, which, "channel bands", 1).at(t).whole
    torch.testing.assert_close(made.gain, gaussian_formula(torch.tensor(t)).gain, rtol=0, atol=1e-3)


@pytest.mark.parametrize("form", ["mean", "bands", "channel bands"])
@pytest.mark.parametrize("varying", [0.0, 1.0])
def test_what_does_not_vary_has_no_gain(form, varying):
    """States that are one sample, but for one frequency or nothing: rounding is not taken for how they vary."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(SAMPLE, dtype=torch.float64, generator=generator).expand(NOISES, *SAMPLE)
    spectrum = torch.zeros(NOISES, *SAMPLE, dtype=torch.float64)
    spectrum[:, :, 0, 1] = torch.randn(NOISES, SAMPLE[0], dtype=torch.float64, generator=generator)
    states = states + varying * cosine_transformed(spectrum, inverse=True)
    which = torch.arange(NOISES)
    pieces = [(part, states[part], 0.5 + 2.0 * states[part]) for part in which.split(BLOCK)]
    formula = FittedFormula.of(form, pieces, which, NOISES, None)
    expected = torch.zeros_like(formula.whole.gain)
    band = radial_bands(SAMPLE[1:])[0, 1] if form.endswith("bands") else 0
    expected[band] = 2.0 * varying * (torch.eye(SAMPLE[0]) if expected.ndim == 3 else 1.0)
    rounding = 16 * NOISES * states[0].numel() * torch.finfo(torch.float64).eps
    torch.testing.assert_close(formula.whole.gain, expected, rtol=0, atol=rounding)
    made, wanted = formula(states, which), 0.5 + 2.0 * states
    of_the_mean = torch.finfo(torch.float32).eps * float(wanted.abs().max())
    torch.testing.assert_close(made, wanted, rtol=0, atol=4 * of_the_mean)


def test_forms_worth_a_trial():
    classes = torch.arange(40) % 10
    assert forms_for((3, 8, 8), classes, 2) == FORMS
    assert forms_for((1, 8, 8), None, 2) == ("scalar", "mean", "bands")
    assert forms_for((3, 8, 8), None) == ("scalar", "mean", "bands", "channel bands")
    assert forms_for((3, 8, 8), classes[:39]) == forms_for((3, 8, 8), None)  # One class has three members.
    assert forms_for((1, 8, 8), classes) == ("scalar", "mean", "bands", "class mean", "class bands")
    assert forms_for((64, 8), None) == ("scalar", "mean")


def test_earlier_predictions_are_combined_with_the_state():
    """What is wanted is the state, changed by a matrix of the channels of two predictions: found but for the ridge."""
    generator = torch.Generator().manual_seed(0)
    seen = torch.randn(NOISES, 3 * SAMPLE[0], *SAMPLE[1:], dtype=torch.float64, generator=generator)
    gains = torch.randn(BANDS, SAMPLE[0], seen.shape[1], dtype=torch.float64, generator=generator)
    exact = AnalyticPrediction(gains, torch.ones(SAMPLE))
    x, *past = seen.chunk(3, 1)
    wanted = exact.bound(x)(x, *past)
    pieces = [(part, seen[part], wanted[part]) for part in torch.arange(NOISES).split(BLOCK)]
    formula = FittedFormula.of(PAST, pieces, torch.arange(NOISES), NOISES, None)
    made = formula(seen, torch.arange(NOISES))
    assert formula.whole.past == 2
    few = radial_bands(SAMPLE[1:]).flatten().bincount() * NOISES * 2 // 3 < 2 * seen.shape[1]
    assert not bool(few.any())  # Equations enough for each band, in each fold.
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-6)


def test_a_class_has_nearly_its_own_mean():
    """Of six members a class: its mean is pulled to that of all by a sixtieth of the way."""

    class Points(fs.DataPredictor):
        process, shape, num_classes = PROCESS, (3,), 4

        def __call__(self, x_t, t, cond):
            return cond.to(x_t.dtype)[:, None].expand_as(x_t)

    classes = torch.arange(NOISES) % 4
    grid = fs.grids.uniform_logsnr(PROCESS, 5, end="zero")
    x_T = torch.randn(NOISES, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    reference = Reference.solve(CountedNetwork(Points(), classes, NOISES, 8), reference_grid(grid, 20), x_T)
    made = Formulas(reference, torch.arange(NOISES), "class mean", 1, classes).at(float(PROCESS.t_max)).whole
    own = torch.arange(4, dtype=torch.float32)[:, None].expand(4, 3)
    torch.testing.assert_close(made.mean, own + (1.5 - own) / 61.0, rtol=0, atol=1e-3)


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

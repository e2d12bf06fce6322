"""Spectra: laws, measured ones, files, and what is refused."""

import numpy as np
import pytest
import torch
from support.gaussian_field import GaussianField

import fewstep as fs
from fewstep.errors import InputError
from fewstep.spectra import NAMES, Spectrum, named
from fewstep.spectra.gaussian import interval_errors
from fewstep.spectra.law import fitted
from fewstep.spectra.nodes import nodes

VP = fs.processes.VPLinear()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 10), (2, 4, 6, 6), (4, 16), (12,)], ids=str)
def test_a_law_has_all_modes_and_the_variance_asked_for(shape):
    spectrum = Spectrum.power_law(1.5, shape, variance=0.3)
    assert spectrum.size == np.prod(shape) and spectrum.total == pytest.approx(0.3)
    assert bool((spectrum.variances.diff() < 0).all())
    assert Spectrum.power_law(0, shape).variances.unique().numel() == 1


def test_the_law_falls_as_the_frequency_to_its_exponent():
    spectrum = Spectrum.power_law(2, (1, 32, 32))
    f = spectrum.frequencies
    assert f is not None and float(f[0]) == 0.0
    product = spectrum.variances[1:] * f[1:] ** 2
    torch.testing.assert_close(product, product[:1].expand_as(product))
    assert float(spectrum.variances[0] / spectrum.variances[1]) == pytest.approx(0.7**-2)


@pytest.mark.parametrize("shape", [(2, 12, 12), (1, 6, 8, 8), (1, 64)], ids=str)
def test_a_spectrum_is_that_of_the_samples(shape):
    """Fields whose modes all have their standard deviation: a radial law is found again shell by shell."""
    model = GaussianField(VP, shape)
    fields = model.modes(model.modes(model.unit(400)) * model.variances.sqrt(), back=True) + 0.4
    spectrum = Spectrum.of(fields, robust=False)
    assert spectrum.size == np.prod(shape) and spectrum.shape == shape
    law = Spectrum.power_law(2.0, shape)
    of_law = float(law.variances[0]) / law.total * float(model.variances.mean())
    assert float(spectrum.variances[0]) == pytest.approx(of_law, rel=0.01)
    assert spectrum.total == pytest.approx(float(model.variances.mean()), rel=0.02)


def test_vectors_have_the_eigenvalues_of_their_covariance():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, dtype=torch.float64, generator=generator) @ torch.randn(4, 4, dtype=torch.float64)
    wanted = torch.linalg.eigvalsh(torch.cov(x.T)).flip(0)
    torch.testing.assert_close(Spectrum.of(x).variances, wanted)
    few = Spectrum.of(x[:3])
    assert few.size == 4 and float(few.variances[2:].max()) < 1e-12


def test_the_mean_is_that_of_the_class():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(200, 1, 8, 8, dtype=torch.float64, generator=generator)
    classes = torch.arange(200) % 4
    apart = x + 10.0 * classes.view(-1, 1, 1, 1)
    plain = Spectrum.of(x, classes=classes, robust=False)
    torch.testing.assert_close(Spectrum.of(apart, classes=classes, robust=False).variances, plain.variances)
    assert Spectrum.of(apart, robust=False).total > 10 * plain.total


def test_colours_that_drift_do_not_count():
    """A network that is not fully trained: 40 times the variance at frequency 0, held to the law of the others."""
    model = GaussianField(VP, (3, 16, 16))
    fields = model.modes(model.modes(model.unit(200)) * model.variances.sqrt(), back=True)
    drift = 6.3 * float(model.variances[0, 0] / 256) ** 0.5
    shifts = drift * torch.randn(200, 3, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    raw, held = Spectrum.of(fields + shifts, robust=False), Spectrum.of(fields + shifts)
    clean = Spectrum.of(fields)
    assert float(raw.variances[0] / clean.variances[0]) > 20
    assert float(held.variances[0] / clean.variances[0]) < 2
    torch.testing.assert_close(held.variances[3:9], clean.variances[3:9])


def test_a_law_is_fitted_past_outliers():
    r = torch.arange(1, 20, dtype=torch.float64)
    v = 3.0 * r**-2.2
    v[[0, 1, 7]] *= torch.tensor([50.0, 9.0, 0.1], dtype=torch.float64)
    level, slope = fitted(v, r, r)
    assert slope == pytest.approx(2.2, abs=1e-3) and level == pytest.approx(np.log(3.0), abs=1e-2)


def test_nodes_stand_for_all_modes():
    spectrum = Spectrum.power_law(2.0, (3, 32, 32))
    variances, weights = nodes(spectrum, (1.0,))
    assert len(variances) <= 24 and float(weights.sum()) == pytest.approx(1.0)
    plan = fs.UniPC(2).plan(fs.grids.uniform_logsnr(VP, 8, end="zero"))
    exact = interval_errors(plan, spectrum.variances, spectrum.multiplicities / spectrum.size)
    few = interval_errors(plan, variances, weights)
    torch.testing.assert_close(few.sum(), exact.sum(), rtol=0.02, atol=0)


def test_nodes_of_scaled_spectra_count_relative_to_their_size():
    spectrum = Spectrum([2.0, 0.5], [1, 3])
    variances, weights = nodes(spectrum, (0.5, 2.0))
    assert float(variances @ weights) == pytest.approx(spectrum.total)


def test_files(tmp_path):
    for spectrum in (Spectrum([1.0, 0.5]), Spectrum.power_law(2, (3, 8, 8)), Spectrum([3.0, 1.0], [1, 2], shape=(3,))):
        spectrum.save(tmp_path / "s.json")
        again = Spectrum.load(tmp_path / "s.json")
        assert again == spectrum and hash(again) == hash(spectrum) and again.shape == spectrum.shape
        assert named(tmp_path / "s.json") == named(str(tmp_path / "s.json")) == spectrum
    assert Spectrum([1.0]) != Spectrum([2.0])
    (tmp_path / "s.json").write_text('{"format": "fewstep-spectrum/1", "variances": [1.0]}')
    with pytest.raises(InputError, match="multiplicities is missing"):
        Spectrum.load(tmp_path / "s.json")


def test_names():
    assert {name: named(name).total for name in NAMES if name != "power"} == pytest.approx(
        {"latents": 1.0, "pixels": 0.2, "video": 1.0}
    )
    assert named("power:2") == named("power:exponent=2") != named("power:exponent=2,side=32")
    assert named("latents:exponent=2").variances[0] > named("latents").variances[0]
    assert "16384 modes" in repr(named("latents"))
    assert named("pixels").scaled(2.0).total == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Spectrum([]), "at least one"),
        (lambda: Spectrum([1.0, -0.1]), r"\[-0.1\] among them"),
        (lambda: Spectrum([1.0, float("nan")]), "finite"),
        (lambda: Spectrum([0.0, 0.0]), "above 0"),
        (lambda: Spectrum([1.0, 2.0], [1.0]), "1 multiplicities for 2 variances"),
        (lambda: Spectrum([1.0, 2.0], [1.0, 0.0]), "all above 0"),
        (lambda: Spectrum(["a"]), "sequence of numbers"),
        (lambda: Spectrum([[1.0]]), "one number for each kind"),
        (lambda: Spectrum([1.0], [5.0], shape=(2, 2)), "5 modes"),
        (lambda: Spectrum([1.0], shape=(0,)), "shape of one sample"),
        (lambda: Spectrum.power_law(-1, (1, 8, 8)), "exponent is -1"),
        (lambda: Spectrum.power_law(2, (1, 8.5)), "shape of one sample"),
        (lambda: Spectrum.power_law(2, (1, 8), variance=0.0), "variance is 0"),
        (lambda: Spectrum.of(torch.zeros(3)), "give finite ones"),
        (lambda: Spectrum.of(torch.zeros(1, 1, 8, 8)), "say nothing of a variance"),
        (lambda: Spectrum.of(torch.zeros(4, 1, 8, 8)), "variance above 0"),
        (lambda: Spectrum.of(torch.full((4, 1, 8, 8), float("inf"))), "finite"),
        (lambda: Spectrum.of(torch.zeros(4, 8), classes=[0, 1]), "one for each of the 4"),
        (lambda: Spectrum.power_law(2, (3, 8, 8)).check_shape((1, 8, 8)), r"the model's have \(1, 8, 8\)"),
        (lambda: named("pixel"), "did you mean 'pixels'"),
        (lambda: named("power"), "'power:2'"),
        (lambda: named("power:steep=2"), "steep"),
        (lambda: named("power:nan"), "exponent"),
        (lambda: named("nowhere.json"), "cannot be read"),
        (lambda: named(3.0), "give a Spectrum"),
    ],
)
def test_mistakes_are_answered(make, words):
    with pytest.raises(InputError, match=words):
        make()

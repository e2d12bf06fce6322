"""Analytic predictions: Gaussian data, bands of spatial frequency, means by class, and JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from support.solvers import SOLVERS
from support.waiting import without_waiting

import fewstep as fs
from fewstep.analytic import AnalyticPrediction, cosine_transformed, radial_bands
from fewstep.errors import InputError
from fewstep.executor import folded

EDM = fs.processes.EDM()
GRID = fs.grids.karras(EDM, 4)
BANDS = int(radial_bands((4, 6)).max()) + 1


def planned(formula):
    """Return a plan whose first prediction is the formula."""
    plan = fs.UniPC(2).plan(GRID)
    evaluate = plan.evaluate.clone()
    evaluate[0] = False
    return replace(plan, evaluate=evaluate, analytic=(formula, *[None] * (len(evaluate) - 1)))


def noise(*shape):
    return 80.0 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_on_edm_it_is_the_gaussian_denoiser():
    x, t = noise(3, 2, 4), GRID.times[0]
    made = AnalyticPrediction.gaussian(EDM, t, 0.5).bound(x)(x)
    torch.testing.assert_close(made, 0.25 * x / (t**2 + 0.25), rtol=1e-14, atol=0.0)


def test_a_formula_that_is_the_network_changes_nothing_and_saves_a_call():
    def denoiser(x, t):
        return 0.25 * x / (t**2 + 0.25)

    plan, x = planned(AnalyticPrediction.gaussian(EDM, GRID.times[0], 0.5)), noise(3, 2, 4)
    assert plan.nfe == 3 and len(plan.call_times) == 3 and len(plan.prediction_times) == 4
    base = fs.UniPC(2).plan(GRID)
    torch.testing.assert_close(fs.execute(plan, denoiser, x), fs.execute(base, denoiser, x), rtol=0, atol=1e-12)
    for made, expected in zip(plan.unrolled(), base.unrolled(), strict=True):
        assert torch.equal(made, expected)


@pytest.mark.parametrize("shape", [(2, 1, 5), (2, 3, 4, 6), (1, 2, 2, 3, 4)])
def test_the_cosine_transform_is_orthonormal(shape):
    x = noise(*shape)
    spectrum = cosine_transformed(x)
    torch.testing.assert_close(spectrum.square().sum(), x.square().sum(), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(cosine_transformed(spectrum, inverse=True), x, rtol=0, atol=1e-12)
    constant = cosine_transformed(torch.ones(shape, dtype=torch.float64))
    assert float(constant.flatten(2)[..., 1:].abs().max()) < 1e-13


def test_each_band_has_its_gain():
    bands = radial_bands((4, 6))
    assert bands[0, 0] == 0 and bands[2, 0] == 3 and bands[0, 2] == 2  # 2·6/4 = 3
    gain = torch.arange(BANDS, dtype=torch.float64)
    spectrum = torch.zeros(1, 1, 4, 6, dtype=torch.float64)
    spectrum[0, 0, 2, 3] = 1.0
    x = cosine_transformed(spectrum, inverse=True)
    made = AnalyticPrediction(gain, torch.zeros(())).bound(x)(x)
    torch.testing.assert_close(made, float(bands[2, 3]) * x, rtol=0, atol=1e-13)


def banded(by_class=True):
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(*((3,) if by_class else ()), 2, 4, 6, generator=generator)
    return AnalyticPrediction(torch.rand(BANDS, dtype=torch.float64, generator=generator), mean, by_class)


def coupled():
    """Return gains that are matrices of two channels, those of the two channels' sum and difference in each band."""
    turn = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / 2**0.5
    gains = torch.rand(BANDS, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return AnalyticPrediction(turn @ torch.diag_embed(gains) @ turn, torch.tensor(0.1)), turn, gains


def test_a_matrix_of_the_channels_is_a_gain_of_each_of_their_combinations():
    formula, turn, gains = coupled()
    x = noise(3, 2, 4, 6)
    apart = torch.einsum("ce,nehw->nchw", turn, x)
    channels = [AnalyticPrediction(gains[:, c], torch.zeros(())) for c in range(2)]
    made = torch.cat([one.bound(apart[:, c, None])(apart[:, c, None]) for c, one in enumerate(channels)], dim=1)
    expected = 0.1 + torch.einsum("ce,nehw->nchw", turn, made)
    torch.testing.assert_close(formula.bound(x)(x), expected, rtol=0, atol=1e-6)  # The mean is a float32 number.


def remembering(past=2):
    """Return matrices of two channels of the state and of earlier predictions, in each band."""
    gains = torch.randn(BANDS, 2, 2 * (1 + past), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return AnalyticPrediction(gains, torch.linspace(-1.0, 1.0, 48).view(2, 4, 6))


def test_earlier_predictions_are_more_channels_of_the_state():
    formula, seen = remembering(), noise(3, 6, 4, 6)
    assert formula.past == 2 and coupled()[0].past == banded().past == 0
    x, *past = seen.chunk(3, 1)
    spectrum = cosine_transformed(seen)
    made = torch.einsum("hwce,nehw->nchw", formula.gain[radial_bands((4, 6))], spectrum)
    expected = cosine_transformed(made, inverse=True) + formula.mean
    torch.testing.assert_close(formula.bound(x)(x, *past), expected, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(formula.scaled(4.0).bound(x)(x / 4.0, *past), expected, rtol=1e-12, atol=1e-10)


def test_predictions_that_are_not_kept_are_refused():
    """A row's formula takes what was made before it, which the history must have room for."""
    plan = fs.UniPC(2).plan(fs.grids.karras(EDM, 6))
    last, made, kept = int(plan.evaluate.nonzero().max()), plan.nfe - 1, plan.history_weights.shape[1]
    assert made > kept
    evaluate, formulas = plan.evaluate.clone(), [None] * len(plan.evaluate)
    evaluate[last], formulas[last] = False, remembering(kept)
    ended = replace(plan, evaluate=evaluate, analytic=tuple(formulas))
    formulas[last] = remembering(kept + 1)
    with pytest.raises(InputError, match=f"takes {kept + 1} .*: before it come {made} of x0, and {kept} are kept"):
        replace(ended, analytic=tuple(formulas))
    with pytest.raises(InputError, match="takes 2 earlier data predictions: before it come 0"):
        planned(remembering())
    with pytest.raises(InputError, match="of epsilon"):
        replace(ended, prediction="epsilon", fitted=True)


@pytest.mark.parametrize(
    "formula", [banded(), banded(False), coupled()[0], AnalyticPrediction(torch.ones(1), torch.tensor(0.1))]
)
def test_json_gives_the_same_samples_bit_for_bit(formula):
    plan, x, classes = planned(formula), noise(4, 2, 4, 6).float(), torch.tensor([0, 2, 1, 2])

    def denoiser(x, t, cond):
        return 0.1 * x

    again = fs.Plan.from_json(plan.to_json())
    assert again.nfe == plan.nfe and "=" in str(again)
    assert torch.equal(fs.execute(again, denoiser, x, cond=classes), fs.execute(plan, denoiser, x, cond=classes))


def test_a_sample_does_not_depend_on_its_batch():
    x, classes = noise(5, 2, 4, 6).float(), torch.tensor([0, 2, 1, 2, 0])
    for formula in (banded(), coupled()[0], remembering()):
        whole = formula.bound(x, classes)(x, *[x.tanh()] * formula.past)
        for one in torch.arange(5).split(1):
            part = formula.bound(x[one], classes[one])(x[one], *[x[one].tanh()] * formula.past)
            assert torch.equal(part, whole[one])


@pytest.mark.parametrize("formula", [banded(False), coupled()[0], remembering()])
def test_nothing_waits_for_a_device_once_a_formula_is_bound(formula):
    x = torch.zeros(3, 2, 4, 6, device="meta")
    predict = formula.bound(x)
    with without_waiting(x.device):
        predict(x, *[x] * formula.past)


def test_another_size_and_missing_classes_are_refused():
    with pytest.raises(InputError, match="give cond, the class of each sample"):
        banded().bound(torch.zeros(2, 2, 4, 6))
    with pytest.raises(InputError, match="class 3 is out of range"):
        banded().bound(torch.zeros(2, 2, 4, 6), torch.tensor([0, 3]))
    with pytest.raises(InputError, match="the size that it was made for"):
        banded(False).bound(torch.zeros(2, 2, 8, 8))
    with pytest.raises(InputError, match=rf"gains \({BANDS},\) by bands"):
        AnalyticPrediction(torch.ones(BANDS), torch.zeros(())).bound(torch.zeros(2, 2, 9, 9))
    with pytest.raises(InputError, match=rf"gains \({BANDS}, 2, 2\) .* they are \({BANDS}, 3, 3\)"):
        coupled()[0].bound(torch.zeros(2, 3, 4, 6))
    with pytest.raises(InputError, match=r"they are \(1,\)"):
        coupled()[0].bound(torch.zeros(2))  # Samples that are numbers.


@pytest.mark.parametrize("shape", [(4,), (1, 4), (3, 4), (2, 3, 4), (2, 2, 3, 4)])
def test_a_mean_is_of_one_sample_and_of_no_batch(shape):
    """Trailing dimensions alone would let means of other shapes through, and add them to the batch."""
    x = torch.zeros(2, 3, 4)
    for mean, by_class in ((torch.zeros(shape), False), (torch.zeros(5, *shape), True)):
        formula = AnalyticPrediction(torch.ones(1), mean, by_class)
        if shape == (3, 4):
            assert formula.bound(x, torch.tensor(4))(x).shape == x.shape
        else:
            with pytest.raises(InputError, match="the size that it was made for"):
                formula.bound(x, torch.tensor(4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_gain_beyond_the_numbers_of_the_state_is_refused(dtype):
    x, most = torch.full((1, 2), 0.5, dtype=dtype), torch.finfo(dtype).max
    made = AnalyticPrediction(torch.tensor([most]), torch.zeros(())).bound(x)(x)
    assert bool(torch.isfinite(made).all())
    with pytest.raises(InputError, match=f"a gain of .*: {dtype} ends at"):
        AnalyticPrediction(torch.tensor([2.0 * most], dtype=torch.float64), torch.zeros(())).bound(x)


def test_damaged_arrays_are_refused():
    text = planned(banded()).to_json()
    stored = json.loads(text)["rows"][0]["analytic"]["mean"]["float32"]
    for other, message in ((stored[:-8], "bytes for the shape"), ("*" + stored[1:], "damaged"), ("", "bytes for the")):
        with pytest.raises(InputError, match=message):
            fs.Plan.from_json(text.replace(stored, other))
    with pytest.raises(InputError, match="damaged"):
        fs.Plan.from_json(text.replace(f'"float32": "{stored}"', '"float32": null'))
    data = json.loads(text)
    mean = data["rows"][0]["analytic"]["mean"]
    for shape in ([1] * 65 + mean["shape"], [2**40] * 3, [10**400]):
        data["rows"][0]["analytic"]["mean"] = {**mean, "shape": shape}
        with pytest.raises(InputError, match="bytes for the shape"):
            fs.Plan.from_json(json.dumps(data))
    gains = json.loads(text)
    for damaged in ([[[1.0, 0.0], [0.0]]], [[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]], [[]]):
        gains["rows"][0]["analytic"]["gain"] = damaged
        with pytest.raises(InputError, match="gain"):
            fs.Plan.from_json(json.dumps(gains))
    for gain, mean in (([], 0.0), ([float("nan")], 0.0), ([1.0], float("inf"))):
        with pytest.raises(InputError, match="analytic prediction"):
            AnalyticPrediction(torch.tensor(gain), torch.tensor(mean))


def test_a_row_has_a_call_or_a_formula():
    plan = planned(banded())
    with pytest.raises(InputError, match="keep one of them"):
        replace(plan, evaluate=fs.UniPC(2).plan(GRID).evaluate)
    with pytest.raises(InputError, match="give one for each"):
        replace(plan, analytic=plan.analytic[:-1])
    with pytest.raises(InputError, match="first row"):
        replace(plan, analytic=())


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_every_solver_can_begin_with_the_gaussian_formula(solver):
    """One call less; on Gaussian data of that deviation nothing changes."""
    first = (
        type(solver)(**{**vars(solver), "analytic_first": True}) if vars(solver) else type(solver)(analytic_first=True)
    )
    base, plan = solver.plan(GRID), first.plan(GRID)
    assert plan.nfe == base.nfe - 1 and not plan.evaluate[0] and plan.solver != base.solver
    assert torch.equal(plan.history_weights, base.history_weights)

    def denoiser(x, t):
        return 0.25 * x / (t**2 + 0.25)

    x = noise(2, 3)
    made, expected = (fs.execute(p, denoiser, x, seeds=range(2)) for p in (plan, base))
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-10)


def test_the_formula_is_a_solvers_setting_by_name_too():
    solver = fs.solvers.named("unipc:order=2,analytic_first=true")
    assert solver == fs.UniPC(2, analytic_first=True) != fs.UniPC(2)
    assert folded(solver.plan(GRID)).nfe == 3
    batch = solver.plan(fs.TimeGrid(EDM, torch.stack([GRID.times, GRID.times])))
    assert batch.unrolled()[1].shape == (2, 4)

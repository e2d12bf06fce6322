"""Denoising losses: closed forms, common noise, and that ρ = 1 changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep import skip
from fewstep.skip_analysis import Change, RealData, denoising_losses, noise_levels, plan_levels
from fewstep.skip_analysis.losses import haar_bands

EDM = fs.processes.EDM()
X_0 = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)


class Identity(fs.DataPredictor):
    """D(x_t) = x_t/α, whose loss is (σ/α)²·ε²."""

    def __init__(self, process=EDM):
        self.process = process

    def __call__(self, x_t, t, cond=None):
        return x_t / self.process.alpha(t)


def noise(seeds):
    return torch.stack([torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


PROCESSES = [EDM, fs.processes.VPDiscrete.from_betas(), fs.processes.RectifiedFlow(2.0)]


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_the_loss_of_no_denoising_is_the_noise(process):
    seeds, levels = [3, 4, 5, 6, 9], (0.05, 0.7, 3.0)
    found = denoising_losses(RealData(Identity(process), X_0, seeds, batch_size=2), levels)
    expected = torch.tensor(levels)[:, None] ** 2 * noise(seeds).square().flatten(1).mean(1)
    torch.testing.assert_close(found.pixel, expected.double(), rtol=1e-4, atol=1e-6)
    assert found.feature is None


def test_features_are_of_images_as_they_are_shown():
    features = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False)).requires_grad_(False)
    weights = features[1].weight.double()
    found = denoising_losses(RealData(Identity(), X_0), (0.5,), features)
    shown = (X_0 + 0.5 * noise(range(5))).clamp(-1, 1)
    expected = ((shown - X_0).double().flatten(1) @ weights.T).square().mean(1)
    torch.testing.assert_close(found.feature[0], expected, rtol=1e-4, atol=1e-7)


def test_a_condition_for_all_is_for_every_batch():
    class Shifted(Identity):
        def __call__(self, x_t, t, cond=None):
            return x_t + cond["shift"]

    shift = torch.full((1, 1, 4, 4), 0.1)
    one, each = (
        denoising_losses(RealData(Shifted(), X_0, cond={"shift": cond}, batch_size=2), (0.5,)).pixel
        for cond in (shift, shift.expand(5, 1, 4, 4))
    )
    assert torch.equal(one, each)


def test_features_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"must be a tensor \[n, d\]"):
        denoising_losses(RealData(Identity(), X_0), (0.5,), lambda images: images.mean())


class Skipping(nn.Module):
    """x = hidden + ρ·skip: with ρ the loss is known."""

    def __init__(self):
        super().__init__()
        self.decoder = Sum()

    def forward(self, x, t):
        return self.decoder(0.5 * x, 0.5 * x)


class Sum(nn.Module):
    def forward(self, hidden, joined):
        return hidden + joined


def test_rho_of_one_changes_nothing_and_others_do():
    sites = [skip.Site("decoder", "joined")]
    network = Skipping()
    data = RealData(fs.Denoiser(network, EDM, "x0"), X_0)
    plain = denoising_losses(data, (0.5, 2.0))
    with skip.tuned(network, rho=1.0, sites=sites):
        assert torch.equal(denoising_losses(data, (0.5, 2.0)).pixel, plain.pixel)
    with skip.tuned(network, rho=0.8, sites=sites):
        tuned = denoising_losses(data, (0.5, 2.0)).pixel
    levels = torch.tensor([0.5, 2.0]).view(-1, 1, 1, 1, 1)
    expected = (0.9 * (X_0 + levels * noise(range(5))) - X_0).square().flatten(2).mean(2)
    torch.testing.assert_close(tuned, expected.double(), rtol=1e-5, atol=1e-7)
    assert torch.equal(denoising_losses(data, (0.5, 2.0)).pixel, plain.pixel)


def test_a_change_and_its_error():
    untuned = torch.tensor([[1.0, 2.0, 3.0, 6.0]], dtype=torch.float64)
    even = Change.of(untuned, 1.1 * untuned)
    assert even.relative.tolist() == pytest.approx([0.1]) and even.error.tolist() == pytest.approx([0.0], abs=1e-12)
    generator = torch.Generator().manual_seed(0)
    population = torch.rand(2, 400, 2000, generator=generator, dtype=torch.float64) + 0.5
    ratios = [Change.of(population[0, i : i + 1], population[1, i : i + 1]) for i in range(400)]
    spread = torch.cat([change.relative for change in ratios]).std()
    assert float(ratios[0].error) == pytest.approx(float(spread), rel=0.15)


def test_noise_levels_lie_in_the_process():
    assert noise_levels(EDM, 3) == pytest.approx((0.01, 0.01 * 8000**0.5, 80.0))
    for process in (fs.processes.VPCosine(), fs.processes.RectifiedFlow(), fs.processes.VPLinear()):
        levels = noise_levels(process)
        times = process.time(-torch.tensor(levels, dtype=torch.float64).log())
        assert len(levels) == 12 and float(times.min()) >= process.t_min * (1 - 1e-9)
        assert float(times.max()) <= process.t_max * (1 + 1e-9)


def test_levels_of_a_plan_leave_pure_noise_out():
    grid = fs.grids.karras(EDM, 4)
    assert plan_levels(fs.UniPC().plan(grid)) == pytest.approx(grid.times[:4].tolist())
    flow = fs.processes.RectifiedFlow()
    assert len(plan_levels(fs.UniPC().plan(fs.TimeGrid(flow, [1.0, 0.7, 0.3, 0.1, 0.0])))) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RealData(Identity(), X_0[:0]), "give real samples"),
        (lambda: RealData(Identity(), X_0 / 0), "NaN or infinity"),
        (lambda: RealData(Identity(), X_0, [1, 2]), "2 seeds for 5 samples"),
        (lambda: RealData(Identity(), X_0, batch_size=0), "batch_size is 0"),
        (lambda: RealData(fs.zoo.load("fashion-mnist"), X_0), r"are \(1, 4, 4\), the model takes \(1, 32, 32\)"),
        (lambda: list(RealData(Identity(), X_0).predictions(0.0)), "noise level"),
        (lambda: list(RealData(Identity(fs.processes.VPLinear()), X_0).predictions(1e9)), "has no noise level"),
        (lambda: noise_levels(EDM, 1), "at least 2"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bands_are_orthonormal_and_tell_frequencies_apart():
    """Parseval: float64 sums of 64 squares, in another order."""
    images = torch.randn(3, 2, 4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bands = haar_bands(images)
    assert bands.shape == (4, 3, 2, 2, 4)
    squares = bands.square().flatten(2).sum((0, 2))
    torch.testing.assert_close(squares, images.square().flatten(1).sum(1), rtol=1e-12, atol=0)
    signs = torch.tensor([1.0, -1.0]).repeat(2)
    flat = torch.ones(4)
    for i, (rows, columns) in enumerate([(flat, flat), (flat, signs), (signs, flat), (signs, signs)]):
        squares = haar_bands((rows[:, None] * columns).view(1, 1, 4, 4)).square().sum((1, 2, 3, 4))
        assert squares.tolist() == [16.0 * (j == i) for j in range(4)]


def test_losses_of_bands_are_the_parts_of_the_loss():
    found = denoising_losses(RealData(Identity(), X_0, batch_size=2), (0.05, 0.7), nn.Flatten())
    torch.testing.assert_close(found.bands.sum(0), found.pixel, rtol=1e-12, atol=0)
    expected = haar_bands(0.7 * noise(range(5)).double()).square().flatten(2).sum(2) / 16
    torch.testing.assert_close(found.bands[:, 1], expected, rtol=1e-4, atol=1e-6)
    assert found.feature.shape == (2, 5)


def test_samples_of_odd_sizes_have_no_bands():
    assert denoising_losses(RealData(Identity(), X_0[..., :3]), (0.5,)).bands is None
    with pytest.raises(ValueError, match="even height and width"):
        haar_bands(X_0[..., :3])

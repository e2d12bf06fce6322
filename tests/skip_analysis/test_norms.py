"""Norm ratios against what is known or concatenated, and that the network is left alone."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel
from support.skip_reference import randomised
from torch import nn
from torch.overrides import TorchFunctionMode

import fewstep as fs
from fewstep import skip
from fewstep.skip_analysis import RealData, norm_ratios

LEVELS = (0.1, 1.0, 10.0)


class Tripled(nn.Module):
    """Hidden features 3x beside the skip x: concatenated, or as two arguments."""

    def __init__(self, apart=False):
        super().__init__()
        self.apart, self.decoder = apart, Block()

    def forward(self, x, t):
        if self.apart:
            return self.decoder(3 * x, skip=x)
        return self.decoder(torch.cat([3 * x, x], dim=1))


class Block(nn.Module):
    def forward(self, x, skip=None):
        return x[:, :2] if skip is None else x + skip


def data(network, samples=4, size=8, channels=2, **more):
    x_0 = torch.randn(samples, channels, size, size, generator=torch.Generator().manual_seed(1))
    return RealData(fs.Denoiser(network, fs.processes.EDM(), "x0"), x_0, **more)


@pytest.mark.parametrize("apart", [False, True])
def test_a_ratio_that_is_known(apart):
    network = Tripled(apart)
    sites = [skip.Site("decoder", "skip") if apart else skip.Site("decoder", channels=2)]
    found = norm_ratios(data(network, batch_size=3), LEVELS, sites)
    assert found.mean.shape == (3, 1) and found.levels == LEVELS
    torch.testing.assert_close(found.mean, torch.full((3, 1), 1 / 3, dtype=torch.float64))
    assert float(found.deviation.max()) < 1e-6
    assert not network.decoder._forward_pre_hooks


def test_a_tuned_skip_is_measured_as_it_is_scaled():
    network, sites = Tripled(), [skip.Site("decoder", channels=2)]
    with skip.tuned(network, rho=0.6, sites=sites):
        found = norm_ratios(data(network), LEVELS, sites)
    torch.testing.assert_close(found.mean, torch.full((3, 1), 0.2, dtype=torch.float64))


class Concatenations(TorchFunctionMode):
    """Notes ‖second‖/‖first‖ of every concatenation of two feature maps."""

    def __init__(self):
        super().__init__()
        self.ratios = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.cat and all(x.ndim == 4 for x in args[0]) and len(args[0]) == 2:
            hidden, joined = (x.double().flatten(1).norm(dim=1) for x in args[0])
            self.ratios.append(float((joined / hidden).mean()))
        return function(*args, **(kwargs or {}))


def test_a_diffusers_unet_against_its_concatenations():
    network = randomised(
        UNet2DModel(
            sample_size=16,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            layers_per_block=1,
            in_channels=2,
            out_channels=2,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )
    )
    samples = data(network, size=16)
    found = norm_ratios(samples, LEVELS)
    assert len(found.skips) == 4
    for i, level in enumerate(LEVELS):
        with Concatenations() as seen:
            list(samples.predictions(level))
        assert found.mean[i].tolist() == pytest.approx(seen.ratios, rel=1e-5)


def test_guidance_and_thresholds_are_looked_through():
    network = randomised(
        UNet2DModel(
            sample_size=8,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            layers_per_block=1,
            in_channels=2,
            out_channels=2,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
        )
    )
    plain = data(network)
    guarded = RealData(fs.guidance.StaticThreshold(plain.denoiser), plain.x_0)
    assert torch.equal(norm_ratios(plain, LEVELS).mean, norm_ratios(guarded, LEVELS).mean)


def test_hidden_features_that_are_not_known_are_asked_for():
    class Tuple(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = Up()

        def forward(self, x, t):
            return self.up(x, (x,))

    class Up(nn.Module):
        def forward(self, x, residuals):
            return x + residuals[0]

    with pytest.raises(ValueError, match="hidden features beside the skip 'up' are not known"):
        norm_ratios(data(Tuple()), LEVELS, [skip.Site("up", "residuals", entry=-1)])


def test_a_skip_that_is_not_used_is_named():
    class Without(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = Block()

        def forward(self, x, t):
            return self.decoder(x)

    with pytest.raises(ValueError, match="did not use its skip 'decoder'"):
        norm_ratios(data(Without()), LEVELS, [skip.Site("decoder", "skip")])

"""ScoreSDE's DDPM++ against its formulas, written again over the weights of a checkpoint of its PyTorch code."""

import math

import pytest
import torch
from support import checkpoints
from torch.nn import functional

import fewstep as fs
from fewstep.errors import InputError
from fewstep.models.score_sde import DDPMPlusPlusSettings, load_score_sde


class Weights(dict):
    """Weights by name, and the layers that they belong to: ``at`` is the place in the list of all."""

    def of(self, at, name):
        return self[f"all_modules.{at}.{name}.weight"], self[f"all_modules.{at}.{name}.bias"]

    def norm(self, at, name, h):
        return functional.group_norm(h, min(h.shape[1] // 4, 32), *self.of(at, name), eps=1e-6)

    def block(self, at, x, condition, resample=None):
        resample = resample or (lambda h: h)
        h = functional.conv2d(
            resample(functional.silu(self.norm(at, "GroupNorm_0", x))), *self.of(at, "Conv_0"), padding=1
        )
        h = h + functional.linear(functional.silu(condition), *self.of(at, "Dense_0"))[:, :, None, None]
        h = functional.conv2d(functional.silu(self.norm(at, "GroupNorm_1", h)), *self.of(at, "Conv_1"), padding=1)
        x = resample(x)
        x = functional.conv2d(x, *self.of(at, "Conv_2")) if f"all_modules.{at}.Conv_2.weight" in self else x
        return (x + h) / math.sqrt(2)

    def attention(self, at, x):
        h = self.norm(at, "GroupNorm_0", x)
        maps = [(self[f"all_modules.{at}.NIN_{i}.W"], self[f"all_modules.{at}.NIN_{i}.b"]) for i in range(4)]
        q, k, v = (torch.einsum("bchw,cd->bdhw", h, w) + b[:, None, None] for w, b in maps[:3])
        weights = torch.einsum("bchw,bcij->bhwij", q, k) / math.sqrt(x.shape[1])
        weights = weights.flatten(3).softmax(-1).view(weights.shape)
        h = torch.einsum("bhwij,bcij->bchw", weights, v)
        return (x + torch.einsum("bchw,cd->bdhw", h, maps[3][0]) + maps[3][1][:, None, None]) / math.sqrt(2)


def halved(x):
    return x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).mean((3, 5))


def doubled(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def computed(weights: Weights, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """The network of two levels, one block each, attention at the lower one, layer by layer."""
    frequencies = 10_000.0 ** (-torch.arange(16) / 15)
    angles = times[:, None] * frequencies
    condition = torch.cat([angles.sin(), angles.cos()], 1)
    condition = functional.linear(condition, weights["all_modules.0.weight"], weights["all_modules.0.bias"])
    condition = functional.silu(condition)
    condition = functional.linear(condition, weights["all_modules.1.weight"], weights["all_modules.1.bias"])
    first = functional.conv2d(x, weights["all_modules.2.weight"], weights["all_modules.2.bias"], padding=1)
    second = weights.block(3, first, condition)
    third = weights.block(4, second, condition, halved)
    fourth = weights.attention(6, weights.block(5, third, condition))
    h = weights.block(9, weights.attention(8, weights.block(7, fourth, condition)), condition)
    h = weights.block(10, torch.cat([h, fourth], 1), condition)
    h = weights.attention(12, weights.block(11, torch.cat([h, third], 1), condition))
    h = weights.block(13, h, condition, doubled)
    h = weights.block(14, torch.cat([h, second], 1), condition)
    h = weights.block(15, torch.cat([h, first], 1), condition)
    norm = weights["all_modules.16.weight"], weights["all_modules.16.bias"]
    h = functional.silu(functional.group_norm(h, 8, *norm, eps=1e-6))
    return functional.conv2d(h, weights["all_modules.17.weight"], weights["all_modules.17.bias"], padding=1)


def test_a_checkpoints_averages_are_an_epsilon_denoiser(tmp_path):
    network = checkpoints.score_sde(tmp_path / "checkpoint_8.pth")
    denoiser = load_score_sde(tmp_path / "checkpoint_8.pth", checkpoints.SCORE_SDE).denoiser
    assert denoiser.process == fs.processes.VPLinear(0.1, 20.0) and denoiser.shape == (3, 16, 16)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    for time in (0.001, 0.3, 1.0):
        t = torch.tensor(time, dtype=torch.float64)
        noise = computed(Weights(network.state_dict()), x, torch.full((2,), 999 * time))
        alpha, sigma = (float(f(t)) for f in (denoiser.process.alpha, denoiser.process.sigma))
        expected = (x - sigma * noise) / alpha
        # A few hundred roundings of float32 on numbers of this size.
        assert torch.allclose(denoiser(x, t), expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


def test_other_files_and_settings_are_refused(tmp_path):
    path = tmp_path / "checkpoint.pth"
    checkpoints.score_sde(path)
    with pytest.raises(InputError, match="of another network"):
        load_score_sde(path, DDPMPlusPlusSettings(16, 3, 32, (1, 2), 2, (8,)))
    held = torch.load(path, weights_only=True)
    held["ema"]["shadow_params"].pop()
    torch.save(held, path)
    with pytest.raises(InputError, match="weights and .* averages"):
        load_score_sde(path, checkpoints.SCORE_SDE)
    torch.save(held["model"], path)
    with pytest.raises(InputError, match="give a checkpoint of ScoreSDE"):
        load_score_sde(path, checkpoints.SCORE_SDE)

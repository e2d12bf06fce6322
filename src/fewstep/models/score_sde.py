"""ScoreSDE's DDPM++ (NCSN++ without its pyramids), variance preserving and continuous in time, and its checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, silu

from fewstep.denoiser import Denoiser
from fewstep.errors import InputError
from fewstep.models.checkpoints import STRICT, filled, read_checkpoint
from fewstep.models.model import Model
from fewstep.processes import VPLinear

__all__ = ["DDPMPlusPlus", "DDPMPlusPlusSettings", "load_score_sde"]

PERIOD = 10_000.0
LAST = 999.0
"""The network's time at t = 1."""
PARALLEL = "module."
"""Prefix of weights that were saved by way of ``DataParallel``."""
BUFFERS = ("sigmas",)
"""What a checkpoint has besides the weights, which this network does not need."""


@dataclass(frozen=True)
class DDPMPlusPlusSettings:
    """The settings of a network, which its checkpoint does not hold.

    Attributes:
        size: pixels along a side of a sample.
        channels: of a sample.
        width: features of the outermost level.
        multipliers: features of each level, in units of ``width``, outermost first.
        blocks: residual blocks in a level of the encoder; the decoder has one more.
        attention: the sizes at which there is attention.
    """

    __pydantic_config__ = STRICT

    size: int
    channels: int
    width: int
    multipliers: Sequence[int]
    blocks: int
    attention: Sequence[int]


class DDPMPlusPlus(nn.Module):
    """DDPM++ of Song et al. (arXiv 2011.13456), appendix H; names of weights are those of its PyTorch code.

    All layers are in one list, ``all_modules``, in the order in which they are called.
    """

    def __init__(self, settings: DDPMPlusPlusSettings) -> None:
        super().__init__()
        self.settings = settings
        width, embedded = settings.width, 4 * settings.width
        layers: list[nn.Module] = [nn.Linear(width, embedded), nn.Linear(embedded, embedded)]
        layers.append(nn.Conv2d(settings.channels, width, 3, padding=1))
        given, skips, size = width, [width], settings.size
        for level, multiplier in enumerate(settings.multipliers):
            for _ in range(settings.blocks):
                layers.append(ResBlock(given, multiplier * width, embedded))
                given = multiplier * width
                if size in settings.attention:
                    layers.append(Attention(given))
                skips.append(given)
            if level < len(settings.multipliers) - 1:
                layers.append(ResBlock(given, given, embedded, resample=-1))
                skips.append(given)
                size //= 2
        layers += [ResBlock(given, given, embedded), Attention(given), ResBlock(given, given, embedded)]
        for level, multiplier in reversed(list(enumerate(settings.multipliers))):
            for _ in range(settings.blocks + 1):
                layers.append(ResBlock(given + skips.pop(), multiplier * width, embedded))
                given = multiplier * width
            if size in settings.attention:
                layers.append(Attention(given))
            if level:
                layers.append(ResBlock(given, given, embedded, resample=1))
                size *= 2
        layers += [_norm(given), nn.Conv2d(given, settings.channels, 3, padding=1)]
        self.all_modules = nn.ModuleList(layers)

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        """Return ε̂ for x [n, C, H, W] at 999·t [n]."""
        layers = iter(self.all_modules)
        condition = next(layers)(_sinusoids(times, self.settings.width))
        condition = silu(next(layers)(silu(condition)))
        h = next(layers)(x)
        skips = [h]
        levels = range(len(self.settings.multipliers))
        for level in levels:
            for _ in range(self.settings.blocks):
                h = self._attended(next(layers)(h, condition), layers)
                skips.append(h)
            if level < levels[-1]:
                h = next(layers)(h, condition)
                skips.append(h)
        h = next(layers)(h, condition)
        h = next(layers)(h)
        h = next(layers)(h, condition)
        for level in reversed(levels):
            for _ in range(self.settings.blocks + 1):
                h = next(layers)(torch.cat([h, skips.pop()], dim=1), condition)
            h = self._attended(h, layers)
            if level:
                h = next(layers)(h, condition)
        h = silu(next(layers)(h))
        return next(layers)(h)

    def _attended(self, h: Tensor, layers: Iterator[nn.Module]) -> Tensor:
        return next(layers)(h) if h.shape[-1] in self.settings.attention else h


class ResBlock(nn.Module):
    """BigGAN's residual block, which may double (1) or halve (−1) the resolution; its sum is divided by √2."""

    def __init__(self, channels: int, out_channels: int, embedded: int, resample: int = 0) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.resample = channels, out_channels, resample
        self.GroupNorm_0 = _norm(channels)
        self.Conv_0 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.Dense_0 = nn.Linear(embedded, out_channels)
        self.GroupNorm_1 = _norm(out_channels)
        self.Conv_1 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if channels != out_channels or resample:
            self.Conv_2 = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the features; the condition has been through its nonlinearity."""
        h = self.Conv_0(self._resampled(silu(self.GroupNorm_0(x)))) + self.Dense_0(condition)[:, :, None, None]
        h = self.Conv_1(silu(self.GroupNorm_1(h)))
        x = self._resampled(x)
        return ((self.Conv_2(x) if hasattr(self, "Conv_2") else x) + h) * math.sqrt(0.5)

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample > 0:
            return interpolate(x, scale_factor=2.0, mode="nearest")
        return avg_pool2d(x, 2) if self.resample < 0 else x


class Attention(nn.Module):
    """Self-attention of one head over the pixels; its sum is divided by √2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.GroupNorm_0 = _norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (Pointwise(channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        h = self.GroupNorm_0(x).flatten(2).transpose(1, 2)
        queries, keys, values = self.NIN_0(h), self.NIN_1(h), self.NIN_2(h)
        made = nn.functional.scaled_dot_product_attention(queries, keys, values)
        return (x + self.NIN_3(made).transpose(1, 2).view_as(x)) * math.sqrt(0.5)


class Pointwise(nn.Module):
    """A linear map of the features, whose matrix is [in, out]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.zeros(channels, channels))
        self.b = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return x·W + b for x [n, pixels, channels]."""
        return x @ self.W + self.b


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


def _sinusoids(times: Tensor, width: int) -> Tensor:
    """Return sines and cosines of the times [n] at ``width``/2 frequencies from 1 to 1/10,000 inclusive, [n, width]."""
    half = width // 2
    places = torch.arange(half, dtype=torch.float32, device=times.device)
    angles = times[:, None] * (-math.log(PERIOD) / (half - 1) * places).exp()
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def load_score_sde(path: Path, settings: DDPMPlusPlusSettings, device: str = "cpu") -> Model:
    """Return a network of ScoreSDE with the averaged weights of its checkpoint; it predicts epsilon on ``VPLinear()``.

    The checkpoint is that of the PyTorch code: "model" names the weights, "ema" has their averages in the same order.

    Source: Song et al. (arXiv 2011.13456), github.com/yang-song/score_sde_pytorch.

    Args:
        path: the ``.pth`` file.
        settings: of the network.
        device: where it lives.

    Raises:
        InputError: if the file cannot be read, or its weights are of other settings.
    """
    held = read_checkpoint(path)
    names, averages = held.get("model"), held.get("ema")
    shadows = averages.get("shadow_params") if isinstance(averages, dict) else None
    if not isinstance(names, dict) or not isinstance(shadows, list):
        raise InputError(f"{str(path)!r} holds no 'model' with its averages 'ema': give a checkpoint of ScoreSDE.")
    plain = [name.removeprefix(PARALLEL) for name in names]
    weights = [name for name in plain if name not in BUFFERS]
    if len(weights) != len(shadows):
        raise InputError(f"{str(path)!r} has {len(weights)} weights and {len(shadows)} averages: download it again.")
    network = filled(lambda: DDPMPlusPlus(settings), dict(zip(weights, shadows, strict=True)), path, device)
    shape = (settings.channels, settings.size, settings.size)
    return Model(Denoiser(network, VPLinear(), "epsilon", shape=shape, network_time=lambda t: LAST * t))

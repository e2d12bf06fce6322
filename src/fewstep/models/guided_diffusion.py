"""guided-diffusion's UNet (ADM), which latent-diffusion's is made of too, and its checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, scaled_dot_product_attention

from fewstep.denoiser import Denoiser
from fewstep.errors import InputError
from fewstep.models.checkpoints import STRICT, filled, read_weights
from fewstep.models.model import Model
from fewstep.processes import Process

__all__ = ["UNetModel", "UNetSettings", "load_adm", "sinusoids"]

GROUPS = 32
PERIOD = 10_000.0


@dataclass(frozen=True)
class UNetSettings:
    """The settings of a UNet, which its checkpoint does not hold.

    Attributes:
        size: pixels along a side of a sample.
        channels: of a sample.
        width: features of the outermost level.
        multipliers: features of each level, in units of ``width``, outermost first.
        blocks: residual blocks in a level of the encoder; the decoder has one more.
        attention: the sizes at which there is attention.
        head_channels: features of an attention head; None: all are one head.
        classes: the number of classes; None: unconditional.
        learned_variance: whether the output has a variance too, in a second half of its channels.
        scale_shift: whether the time scales and shifts features, or is only added.
        residual_resampling: whether residual blocks change the resolution, or convolutions do.
    """

    __pydantic_config__ = STRICT

    size: int
    channels: int
    width: int
    multipliers: Sequence[int]
    blocks: int
    attention: Sequence[int]
    head_channels: int | None = 64
    classes: int | None = None
    learned_variance: bool = True
    scale_shift: bool = True
    residual_resampling: bool = True


class UNetModel(nn.Module):
    """The UNet of Dhariwal & Nichol (arXiv 2105.05233); names of weights are those of its public code.

    Args:
        settings: of the network.
        attend: makes the attention of so many features; by default self-attention.
    """

    def __init__(self, settings: UNetSettings, attend: Callable[[int], nn.Module] | None = None) -> None:
        super().__init__()
        self.image_size, self.model_channels = settings.size, settings.width
        attend = attend or partial(AttentionBlock, head_channels=settings.head_channels)
        embedded, given = 4 * settings.width, settings.multipliers[0] * settings.width
        block = partial(ResBlock, embedded=embedded, scale_shift=settings.scale_shift)

        def level_of(size: int, layers: list[nn.Module], features: int) -> list[nn.Module]:
            return [*layers, attend(features)] if size in settings.attention else layers

        def resampled(features: int, up: bool) -> nn.Module:
            if settings.residual_resampling:
                return block(features, features, resample=1 if up else -1)
            return Upsample(features) if up else Downsample(features)

        self.time_embed = nn.Sequential(nn.Linear(settings.width, embedded), nn.SiLU(), nn.Linear(embedded, embedded))
        if settings.classes is not None:
            self.label_emb = nn.Embedding(settings.classes, embedded)
        inputs: list[list[nn.Module]] = [[nn.Conv2d(settings.channels, given, 3, padding=1)]]
        outputs: list[list[nn.Module]] = []
        skips, size, outermost = [given], settings.size, given
        for level, multiplier in enumerate(settings.multipliers):
            features = multiplier * settings.width
            for _ in range(settings.blocks):
                inputs.append(level_of(size, [block(given, features)], features))
                given = features
                skips.append(given)
            if level < len(settings.multipliers) - 1:
                inputs.append([resampled(given, up=False)])
                skips.append(given)
                size //= 2
        self.input_blocks = nn.ModuleList(TimestepEmbedSequential(*layers) for layers in inputs)
        self.middle_block = TimestepEmbedSequential(block(given, given), attend(given), block(given, given))
        for level, multiplier in reversed(list(enumerate(settings.multipliers))):
            features = multiplier * settings.width
            for i in range(settings.blocks + 1):
                layers = level_of(size, [block(given + skips.pop(), features)], features)
                given = features
                if level and i == settings.blocks:
                    layers.append(resampled(given, up=True))
                    size *= 2
                outputs.append(layers)
        self.output_blocks = nn.ModuleList(TimestepEmbedSequential(*layers) for layers in outputs)
        last = settings.channels * (2 if settings.learned_variance else 1)
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, given), nn.SiLU(), nn.Conv2d(outermost, last, 3, padding=1))

    def forward(self, x: Tensor, times: Tensor, labels: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """Return the output for x [n, C, H, W] at training indices [n], for classes or a context [n, m, d]."""
        condition = self.time_embed(sinusoids(times, self.model_channels))
        if labels is not None:
            condition = condition + self.label_emb(labels)
        elif hasattr(self, "label_emb"):
            raise InputError("this model needs a class for each image: give --class N or each (cond=… in Python).")
        skips, h = [], x
        for block in self.input_blocks:
            h = block(h, condition, context)
            skips.append(h)
        h = self.middle_block(h, condition, context)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), condition, context)
        return self.out(h)


class TimestepEmbedSequential(nn.Sequential):
    """Layers in a row, each given the condition or the context that it takes."""

    def forward(  # type: ignore[override]
        self, x: Tensor, condition: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Return the features."""
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, condition)
            elif getattr(layer, "takes_context", False):
                x = layer(x, context)
            else:
                x = layer(x)
        return x


class ResBlock(nn.Module):
    """A residual block, which may double (1) or halve (−1) the resolution."""

    def __init__(
        self, channels: int, out_channels: int, *, embedded: int, scale_shift: bool, resample: int = 0
    ) -> None:
        super().__init__()
        self.channels, self.out_channels = channels, out_channels
        self.resample, self.updown, self.scale_shift = resample, resample != 0, scale_shift
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedded, out_channels * (2 if scale_shift else 1)))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, out_channels),
            nn.SiLU(),
            nn.Identity(),  # In training, dropout.
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        same = channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the features."""
        h = self.in_layers[2](self._resampled(self.in_layers[1](self.in_layers[0](x))))
        x = self._resampled(x)
        made = self.emb_layers(condition)[:, :, None, None]
        if self.scale_shift:
            scale, shift = made.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + made)
        return self.skip_connection(x) + h

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample > 0:
            return interpolate(x, scale_factor=2.0, mode="nearest")
        return avg_pool2d(x, 2) if self.resample < 0 else x


class AttentionBlock(nn.Module):
    """Self-attention over the pixels; queries, keys and values come one after the other ("new attention order")."""

    def __init__(self, channels: int, *, head_channels: int | None) -> None:
        super().__init__()
        self.heads = channels // (head_channels or channels)
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        flat = x.flatten(2)
        parts = self.qkv(self.norm(flat)).unflatten(1, (3, self.heads, -1)).transpose(-1, -2)
        made = scaled_dot_product_attention(*parts.unbind(1)).transpose(-1, -2).flatten(1, 2)
        return (flat + self.proj_out(made)).view_as(x)


class Upsample(nn.Module):
    """Twice the resolution, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = self.out_channels = channels
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        return self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))


class Downsample(nn.Module):
    """A convolution with stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = self.out_channels = channels
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        return self.op(x)


def sinusoids(times: Tensor, width: int) -> Tensor:
    """Return cosines and sines of the times [n] at ``width``/2 frequencies from 1 to 1/10,000, [n, width]."""
    half = width // 2
    places = torch.arange(half, dtype=torch.float32, device=times.device)
    angles = times[:, None] * (-math.log(PERIOD) / half * places).exp()
    made = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return made if width % 2 == 0 else torch.cat([made, torch.zeros_like(made[:, :1])], dim=-1)


def load_adm(path: Path, settings: UNetSettings, process: Process, device: str = "cpu") -> Model:
    """Return a network of guided-diffusion with the weights of its checkpoint; it predicts epsilon.

    Source: Dhariwal & Nichol (arXiv 2105.05233), github.com/openai/guided-diffusion.

    Args:
        path: the ``.pt`` file, a dictionary of weights.
        settings: of the network.
        process: of its training steps (see ``VPDiscrete``).
        device: where it lives.

    Raises:
        InputError: if the file cannot be read, or its weights are of other settings.
    """
    network = filled(lambda: UNetModel(settings), read_weights(path), path, device)
    return Model(
        Denoiser(
            network,
            process,
            "epsilon",
            shape=(settings.channels, settings.size, settings.size),
            num_classes=settings.classes,
            learned_variance=settings.learned_variance,
        )
    )

"""The denoising loss of real samples, in pixels and in features, over the noise level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fewstep import checks
from fewstep.denoiser import network_device
from fewstep.errors import InputError, one_line
from fewstep.skip_analysis.real_data import RealData

__all__ = ["BANDS", "Change", "FeatureMap", "Losses", "denoising_losses", "features_of", "haar_bands"]

FeatureMap = Callable[[Tensor], Tensor]
"""Images [n, C, H, W] in [−1, 1] to features [n, d]: ``fs.metrics.features(name)``, a module, any callable."""

BANDS = ("LL", "LH", "HL", "HH")
"""Haar's bands: low or high over the height, then over the width."""


@dataclass(frozen=True)
class Losses:
    """The denoising loss of every sample at every noise level.

    Attributes:
        levels: the noise levels σ/α.
        pixel: float64 [levels, n].
        feature: the same in features; None without any.
        bands: the parts of ``pixel`` in Haar's four bands, of which it is the sum, float64 [4, levels, n]; None where
            samples are no images of even height and width.
    """

    levels: tuple[float, ...]
    pixel: Tensor
    feature: Tensor | None
    bands: Tensor | None = None


@dataclass(frozen=True)
class Change:
    """A loss with and without tuning, over the noise level; all float64 [levels].

    ``relative`` is the tuned loss over the untuned one, less 1; ``error`` its standard error, on common samples
    and noise.
    """

    untuned: Tensor
    tuned: Tensor
    relative: Tensor
    error: Tensor

    @classmethod
    def of(cls, untuned: Tensor, tuned: Tensor) -> Change:
        """Return the change from losses [levels, n] to other ones of the same samples."""
        before, after = untuned.mean(1), tuned.mean(1)
        ratio = after / before
        spread = (tuned - ratio[:, None] * untuned).std(1) / untuned.shape[1] ** 0.5
        return cls(before, after, ratio - 1.0, spread / before)

    def to_dict(self) -> dict[str, list[float]]:
        """Return the four as lists."""
        return {name: value.tolist() for name, value in vars(self).items()}


@torch.no_grad()
def denoising_losses(
    data: RealData,
    levels: Sequence[float],
    features: FeatureMap | None = None,
    decode: Callable[[Tensor], Tensor] | None = None,
) -> Losses:
    r"""Return ‖D(x_t) − x_0‖²/d, by wavelet band too, and ‖f(D(x_t)) − f(x_0)‖²/d', of each sample at each level.

    d and d' are the numbers of pixels and of features, so that both are mean squares. Features are taken of images
    as they are shown: D is decoded, and clamped to [−1, 1], first.

    Args:
        data: the samples.
        levels: noise levels σ/α.
        features: f; None for pixels (or latents) alone.
        decode: samples to images, for models that work on latents.

    Raises:
        InputError: if the features do not take the images.
    """
    levels = _checked(data, levels, features, decode)
    banded = _has_bands(data.x_0)
    pixel = torch.zeros(len(levels), len(data), dtype=torch.float64)
    feature = None if features is None else torch.zeros_like(pixel)
    bands = pixel.new_zeros(len(BANDS), *pixel.shape) if banded else None
    for i, level in enumerate(levels):
        found = data.kept(f"losses/{level!r}", data.batches, partial(_losses, data, level, features, decode))
        pixel[i] = found[0]
        if bands is not None:
            bands[:, i] = found[1].T
        if feature is not None:
            feature[i] = found[-1]
    return Losses(levels, pixel, feature, bands)


def haar_bands(images: Tensor) -> Tensor:
    r"""Return Haar's transform of images [n, C, H, W] to one level, [4, n, C, H/2, W/2]: ``BANDS``, orthonormal.

    Of a square of pixels a, b above c, d they are (a ± b ± c ± d)/2; the squares of all coefficients sum to those of
    all pixels. Source: Mallat, A Wavelet Tour of Signal Processing, section 7.7.

    Raises:
        InputError: if they are no images of even height and width.
    """
    checks.tensor("images", images, "give floats [n, C, H, W]")
    if not _has_bands(images):
        raise InputError(f"images are {tuple(images.shape)}: give [n, C, H, W] of even height and width.")
    rows = images.unflatten(2, (-1, 2))
    halves = (rows[:, :, :, 0] + rows[:, :, :, 1], rows[:, :, :, 0] - rows[:, :, :, 1])
    pairs = [half.unflatten(3, (-1, 2)).unbind(-1) for half in halves]
    return torch.stack([made for left, right in pairs for made in (left + right, left - right)]) / 2.0


def _has_bands(samples: Tensor) -> bool:
    """Return whether samples are images of even height and width."""
    return samples.ndim == 4 and samples.shape[2] % 2 == samples.shape[3] % 2 == 0


def _checked(data: Any, levels: Any, features: Any, decode: Any) -> tuple[float, ...]:
    """Refuse what are no samples and functions; return the levels."""
    checks.instance(RealData, "data", data, "give an fs.skip_analysis.RealData")
    checks.check_callback("features", features)
    checks.check_callback("decode", decode)
    return checks.levels("levels", levels)


def _losses(
    data: RealData, level: float, features: FeatureMap | None, decode: Callable[[Tensor], Tensor] | None
) -> tuple[Tensor, ...]:
    """Return the losses of each sample at one level, float64 [n], by band [n, 4] and in features, if there are such."""
    pixel, bands, feature = list[Tensor](), list[Tensor](), list[Tensor]()
    for x_0, prediction in data.predictions(level):
        pixel.append(_mean_square(prediction, x_0))
        if _has_bands(x_0):
            squares = haar_bands(prediction.double() - x_0.double()).square().flatten(2).sum(2)
            bands.append(squares.T.cpu() / x_0[0].numel())
        if features is not None:
            images = (x if decode is None else decode(x) for x in (prediction, x_0))
            feature.append(_mean_square(*(features_of(x.clamp(-1.0, 1.0), features) for x in images)))
    return tuple(torch.cat(parts) for parts in (pixel, bands, feature) if parts)


def features_of(images: Tensor, features: FeatureMap) -> Tensor:
    """Return the features [n, d] of images in [−1, 1], asked where a module of features lives, else on the host.

    Raises:
        InputError: if they are of another shape.
    """
    try:
        with torch.no_grad():
            made = features(images.to(network_device(features, None), torch.float32))
    except (InputError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # Of a function from outside.
        raise InputError(f"the features fail on images {tuple(images.shape)}: {one_line(str(error))}") from error
    if not isinstance(made, Tensor) or made.ndim < 2 or len(made) != len(images):
        shape = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise InputError(f"the features of {len(images)} images are {shape}: they must be a tensor [n, d].")
    return made.cpu()


def _mean_square(one: Tensor, other: Tensor) -> Tensor:
    return (one.double() - other.double()).square().flatten(1).mean(1).cpu()

"""The analytic prediction: a formula of the state that takes the place of a network call."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fewstep.checks import as_given, shown
from fewstep.errors import InputError
from fewstep.processes import Process
from fewstep.processes.base import on_host
from fewstep.storage import Schema

__all__ = ["AnalyticPrediction", "StoredAnalytic", "amplified", "cosine_transformed", "radial_bands"]


MOST_DIMENSIONS = 16
"""Of a mean: samples have a few, and an array cannot have any number of them."""


class StoredMean(Schema):
    """An array in JSON: its shape, and its values as little-endian float32 in base64."""

    shape: list[int]
    float32: str


class StoredAnalytic(Schema):
    """An analytic prediction in JSON."""

    gain: list[float] | list[list[list[float]]] = Field(min_length=1)
    mean: StoredMean | float
    by_class: bool = False


@dataclass(frozen=True, eq=False)
class AnalyticPrediction:
    r"""D̂(x) = mean + gain∘x, a data prediction without a network; or D̂(x, H_1, …) of earlier predictions too.

    Where noise is high the data prediction is nearly linear in the state. One gain multiplies all values; several
    multiply the spatial frequencies of a sample [channels, …], gain b those whose radius rounds to b: the orthonormal
    cosine transform (DCT-II) over all dimensions but the first has the frequencies k_i = 0 … L_i − 1, and radius
    √(Σ_i (k_i·L/L_i)²) with L the largest L_i. A gain that is a matrix of the channels knows what they share: in
    pixels brightness varies ten times as much as colour does. A wider matrix also takes the channels of the newest
    earlier predictions, one after the other.

    Args:
        gain: float64 [bands], one gain for all values or one for each band; [bands, channels, channels·(1 + k)], a
            matrix for each band that makes the channels of D̂ (its rows) from those of x and of the k newest earlier
            predictions; [..., 1] in a batch of plans.
        mean: float32, one number [], one sample [channels, …], or one for each class [classes, channels, …].
        by_class: whether ``mean`` has one sample for each class.

    Raises:
        InputError: if a number is not finite, or shapes cannot be so.
    """

    gain: Tensor
    mean: Tensor
    by_class: bool = False

    @on_host
    def __post_init__(self) -> None:
        """Refuse arrays that are wrong."""
        object.__setattr__(self, "gain", torch.as_tensor(self.gain).detach().to("cpu", torch.float64))
        object.__setattr__(self, "mean", torch.as_tensor(self.mean).detach().to("cpu", torch.float32))
        for name in ("gain", "mean"):
            if not bool(torch.isfinite(getattr(self, name)).all()):
                raise InputError(f"the {name} of an analytic prediction is not finite: fit it anew.")
        shape = self.gain.shape
        matrices = self.gain.ndim == 3 and self.gain.numel() > 0 and shape[-1] % shape[-2] == 0
        if self.gain.numel() == 0 or not (self.gain.ndim == 1 or shape[-1:] == (1,) or matrices):
            raise InputError(
                f"the gain of an analytic prediction has shape {tuple(shape)}: give [bands], or "
                "[bands, channels, channels·(1 + k)]."
            )
        if self.mean.numel() == 0 or self.mean.ndim > MOST_DIMENSIONS or (self.by_class and self.mean.ndim < 2):
            raise InputError(
                f"the mean of an analytic prediction has shape {tuple(self.mean.shape)}: give a number, a sample, or "
                "one sample for each class."
            )

    @classmethod
    def gaussian(cls, process: Process, t: Tensor, std: float) -> AnalyticPrediction:
        r"""Return the data prediction of Gaussian data of mean 0, D̂ = α·s²·x/(α²·s² + σ²), exact if data are so.

        On EDM it is σ_data²·x/(σ² + σ_data²) with s = σ_data.

        Args:
            process: where α and σ come from.
            t: the time of the prediction, []; [...] in a batch of plans.
            std: s, the standard deviation of the data.
        """
        alpha, sigma = process.alpha(t), process.sigma(t)
        return cls((alpha * std**2 / ((alpha * std) ** 2 + sigma**2))[..., None], torch.zeros(()))

    @property
    def past(self) -> int:
        """How many earlier predictions it takes, the newest ones."""
        shape = self.gain.shape
        return shape[-1] // shape[-2] - 1 if self.gain.ndim == 3 and shape[-1] > 1 else 0

    def scaled(self, factor: float) -> AnalyticPrediction:
        """Return the same prediction of a state that is ``factor`` times smaller."""
        gain = self.gain.clone()
        gain[..., : gain.shape[-1] // (1 + self.past)] *= factor
        return replace(self, gain=gain)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON holds: the gains and a single mean as numbers, an array of means in base64."""
        mean: Any = (
            float(self.mean)
            if self.mean.ndim == 0
            else {
                "shape": list(self.mean.shape),
                "float32": base64.b64encode(self.mean.contiguous().numpy().astype("<f4").tobytes()).decode("ascii"),
            }
        )
        return {"gain": self.gain.tolist(), "mean": mean, "by_class": self.by_class}

    @classmethod
    def of(cls, stored: StoredAnalytic) -> AnalyticPrediction:
        """Return the prediction that JSON held, bit for bit.

        Raises:
            InputError: if its array is damaged.
        """
        try:
            gain = torch.tensor(stored.gain, dtype=torch.float64)
        except ValueError as error:
            raise InputError(
                f"the gain of an analytic prediction is damaged ({error}): write the plan anew."
            ) from error
        if isinstance(stored.mean, float):
            return cls(gain, torch.tensor(stored.mean), stored.by_class)
        shape, text = stored.mean.shape, stored.mean.float32
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InputError(
                f"the mean of an analytic prediction is damaged ({error}): write the plan anew."
            ) from error
        if min(shape, default=1) < 1 or len(shape) > MOST_DIMENSIONS or len(raw) != 4 * math.prod(shape):
            raise InputError(
                f"the mean of an analytic prediction is damaged: {len(raw)} bytes for the shape {shown(shape)}; write "
                "the plan anew."
            )
        values = np.frombuffer(raw, dtype="<f4").astype(np.float32).reshape(shape)
        return cls(gain, torch.from_numpy(values), stored.by_class)

    def bound(self, x: Tensor, cond: Any = None) -> Callable[..., Tensor]:
        """Return (x_t, H_1, …) → D̂, for a batch shaped like ``x`` [batch, channels, …], its arrays where ``x`` is.

        It takes ``past`` earlier predictions, the newest first.

        Raises:
            InputError: if the arrays are of samples of another shape, or of classes and ``cond`` names none, or the
                gain is beyond the numbers of ``x``.
        """
        sample = tuple(x.shape[1:])
        made_for = tuple(self.mean.shape[int(self.by_class) :])
        if self.mean.ndim and made_for != sample:
            raise InputError(
                f"the plan's analytic predictions are of samples {made_for}, x_T has samples of {sample}: it runs at "
                "the size that it was made for."
            )
        mean = self._mean(cond, len(x)).to(x.device, x.dtype)
        if self.gain.ndim == 1 and len(self.gain) == 1:
            gain, most = float(self.gain), torch.finfo(x.dtype).max
            if abs(gain) > most:
                raise InputError(
                    f"the plan's analytic predictions have a gain of {gain:g}: {x.dtype} ends at {most:g}."
                )
            return lambda x_t: torch.add(mean, x_t, alpha=gain)
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        bands = radial_bands(sample[1:])
        matrix = (*sample[:1], *(size * (1 + self.past) for size in sample[:1])) if self.gain.ndim == 3 else ()
        expected = (int(bands.max()) + 1, *matrix)
        if tuple(self.gain.shape) != expected:
            raise InputError(
                f"the plan's analytic predictions have gains {tuple(self.gain.shape)} by bands of spatial frequency, "
                f"for samples of {sample} they are {expected}: it runs at the size that it was made for."
            )
        gains = self.gain[bands].to(x.device, wide)
        cosines = _all_cosines(sample[1:], x.device, wide)  # Placed now: a prediction does not wait for the device.

        def predict(x_t: Tensor, *past: Tensor) -> Tensor:
            seen = torch.cat([x_t, *past], 1) if past else x_t
            spectrum = amplified(_multiplied(seen.to(wide), cosines), gains)
            return _multiplied(spectrum, [matrix.T for matrix in cosines]).to(x_t.dtype).add_(mean)

        return predict

    def _mean(self, cond: Any, batch: int) -> Tensor:
        if not self.by_class:
            return self.mean
        classes = as_given(-1 if cond is None or isinstance(cond, (dict, str)) else cond)
        if classes.is_floating_point() or classes.ndim > 1 or bool((classes < 0).any()):
            raise InputError("the plan's analytic predictions are of classes: give cond, the class of each sample.")
        if int(classes.max()) >= len(self.mean):
            raise InputError(f"class {int(classes.max())} is out of range: the plan knows {len(self.mean)} classes.")
        return self.mean[classes.cpu().expand(batch)]


def amplified(spectrum: Tensor, gains: Tensor) -> Tensor:
    """Return a spectrum [batch, channels, …] times its gains […], or matrices of the channels […, made, channels].

    Sums are made channel by channel: a sample's do not depend on its batch.
    """
    if gains.ndim == spectrum.ndim - 2:
        return spectrum * gains
    rows = gains.movedim(-1, 0).movedim(-1, 0)  # [channels of D̂, channels of x, …]
    return torch.stack([(spectrum * row).sum(1) for row in rows], dim=1)


def radial_bands(shape: tuple[int, ...]) -> Tensor:
    """Return the band of each spatial frequency, int64 [*shape]: its radius, rounded."""
    largest = max(shape, default=1)
    axes = [torch.arange(size, dtype=torch.float64) * (largest / size) for size in shape]
    squared = torch.zeros(shape, dtype=torch.float64)
    for place, axis in enumerate(axes):
        squared = squared + axis.square().view(-1, *[1] * (len(shape) - 1 - place))
    return squared.sqrt().round().long()


def cosine_transformed(x: Tensor, inverse: bool = False) -> Tensor:
    """Return the orthonormal DCT-II of ``x`` [batch, channels, …] over all but its first two dimensions."""
    cosines = _all_cosines(tuple(x.shape[2:]), x.device, x.dtype)
    return _multiplied(x, [matrix.T for matrix in cosines] if inverse else cosines)


def _all_cosines(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Return the matrix of each spatial dimension."""
    return [_cosines(size).to(device, dtype) for size in shape]


def _multiplied(x: Tensor, matrices: list[Tensor]) -> Tensor:
    """Return ``x`` times a matrix along each of its dimensions but the first two."""
    for axis, matrix in enumerate(matrices, 2):
        x = torch.movedim(torch.movedim(x, axis, -1) @ matrix.T, -1, axis)
    return x


def _cosines(size: int) -> Tensor:
    """Return the matrix of the orthonormal DCT-II, float64 [frequency, place]."""
    frequency = torch.arange(size, dtype=torch.float64)[:, None]
    place = torch.arange(size, dtype=torch.float64)[None]
    matrix = torch.cos(math.pi * frequency * (2.0 * place + 1.0) / (2.0 * size)) * math.sqrt(2.0 / size)
    matrix[0] /= math.sqrt(2.0)
    return matrix

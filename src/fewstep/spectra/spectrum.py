"""The spectrum of data: how much each frequency varies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fewstep.checks import checked_shape, real
from fewstep.errors import InputError
from fewstep.processes.base import on_host, positive
from fewstep.spectra.law import capped
from fewstep.storage import Schema, Stored, json_text, parsed

__all__ = ["Spectrum"]

FORMAT = "fewstep-spectrum/1"
ZERO_FREQUENCY = 0.7
"""Where a power law is read at for the frequency 0, in units of the lowest other one: of Fashion-MNIST, CIFAR-10 and
small faces the mean's variance is the law's at 0.64 to 0.74."""
CHUNK = 2**24
"""Numbers that are transformed at a time."""


class _StoredSpectrum(Schema):
    format: Literal["fewstep-spectrum/1"]
    variances: list[float]
    multiplicities: list[float]
    frequencies: list[float] | None
    shape: list[int] | None


@dataclass(frozen=True, eq=False)
class Spectrum(Stored):
    r"""Variances of the modes of data: E|x̂_k|² about the mean in an orthonormal basis, such as the Fourier one.

    The sum of variances times multiplicities is the mean squared norm of a sample less its mean; a mode that varies by
    1 varies as much as the noise of a process at σ = 1.

    Args:
        variances: of each kind of mode, [K], at least 0, not all 0.
        multiplicities: how many modes are of that kind, [K], above 0; all 1 by default.
        frequencies: of each kind in cycles per pixel, [K], for pictures of it; None where modes have none.
        shape: of a sample, which the modes then must fill.

    Raises:
        InputError: if there are none, lengths differ, or a number is negative or not finite; or if the modes are more
            or fewer than the numbers of a sample of ``shape``.
    """

    variances: Tensor
    multiplicities: Tensor
    frequencies: Tensor | None = None
    shape: tuple[int, ...] | None = None

    @on_host
    def __init__(
        self,
        variances: Any,
        multiplicities: Any = None,
        *,
        frequencies: Any = None,
        shape: Sequence[int] | None = None,
    ) -> None:
        values = _checked("variances", variances)
        counts = torch.ones_like(values) if multiplicities is None else _checked("multiplicities", multiplicities)
        places = None if frequencies is None else _checked("frequencies", frequencies)
        for name, given in (("multiplicities", counts), ("frequencies", places)):
            if given is not None and given.shape != values.shape:
                raise InputError(f"there are {len(given)} {name} for {len(values)} variances: give one for each.")
        if not bool((values > 0).any()) or not bool((counts > 0).all()):
            raise InputError("a spectrum needs a variance above 0, and multiplicities that are all above 0.")
        for name, value in (("variances", values), ("multiplicities", counts), ("frequencies", places)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "shape", None if shape is None else checked_shape(shape))
        if self.shape is not None and abs(self.size - math.prod(self.shape)) > 1e-6 * self.size:
            raise InputError(f"the spectrum has {self.size:g} modes, a sample of shape {self.shape} has other ones.")

    @property
    def size(self) -> float:
        """The number of modes."""
        return float(self.multiplicities.sum())

    @property
    def total(self) -> float:
        """The mean variance of a mode, which is that of a pixel."""
        return float((self.variances * self.multiplicities).sum()) / self.size

    def scaled(self, factor: float) -> Spectrum:
        """Return the spectrum of data that vary ``factor`` times as much (in variance)."""
        scale = positive("factor", factor)
        return Spectrum(self.variances * scale, self.multiplicities, frequencies=self.frequencies, shape=self.shape)

    def check_shape(self, shape: Sequence[int]) -> Spectrum:
        """Return the spectrum if it can be that of samples of ``shape``.

        Raises:
            InputError: if it is of samples of another shape.
        """
        if self.shape is not None and self.shape != tuple(shape):
            raise InputError(
                f"the spectrum is of samples of shape {self.shape}, the model's have {tuple(shape)}: measure it on the "
                "model's own, or give a law such as 'power:2'."
            )
        return self

    @classmethod
    @on_host
    def power_law(cls, exponent: float, shape: Sequence[int], *, variance: float = 1.0) -> Spectrum:
        r"""Return the spectrum whose variances fall as r^{−exponent} with the frequency r = \|f\|.

        f runs over the spatial frequencies of ``shape`` = (channels, …), in cycles per pixel; frequency 0 has the law's
        value at 0.7 times the lowest other one. For a shape of one number the law is in the mode's number 1, 2, …

        Args:
            exponent: 2 for photographs in full resolution (Field, 1987), about 3 for small ones; 0 is white.
            shape: of a sample: channels, then any number of spatial dimensions.
            variance: the mean variance of a pixel.

        Raises:
            InputError: for an exponent below 0, an impossible shape, or a variance that is not positive.
        """
        sides = checked_shape(shape)
        slope = real("exponent", exponent, 0.0)
        if len(sides) == 1:
            radii, counts = (
                torch.arange(1, sides[0] + 1, dtype=torch.float64),
                torch.ones(sides[0], dtype=torch.float64),
            )
            frequencies = None
        else:
            frequencies, counts = torch.unique((radius(sides[1:]) * 1e9).round() / 1e9, return_counts=True)
            counts = counts.to(torch.float64) * sides[0]
            radii = frequencies.clamp(min=ZERO_FREQUENCY / max(sides[1:]))
        made = torch.exp(-slope * (radii.log() - radii.log().mean()))
        made = made * (positive("variance", variance) * counts.sum() / (made * counts).sum())
        return cls(made, counts, frequencies=frequencies, shape=sides)

    @classmethod
    @on_host
    def of(cls, samples: Any, *, classes: Any = None, robust: bool = True) -> Spectrum:
        r"""Return the spectrum of samples about their mean.

        Samples [n, channels, …] have a radial one, each channel its own: the squared Fourier coefficients, averaged
        over the samples and over shells of frequency. Samples [n, d] have the eigenvalues of their covariance.

        Networks that are not fully trained make samples whose mean brightness or colour drifts, with many times the
        variance of the data at frequency 0. With ``robust`` a power law is fitted to the shells (least absolute
        deviations of the logarithms, each mode counting once, so that the few lowest ones hardly do), and the lowest
        shells are held to at most 1.5 times that law.

        Args:
            samples: 2 or more: the data, or what a model makes of noise.
            classes: of each sample, [n], where the mean is that of the class.
            robust: whether the lowest frequencies are held to the law.

        Raises:
            InputError: if there are too few samples or numbers, one is not finite, or nothing varies.
        """
        x = torch.as_tensor(samples).detach().to("cpu", torch.float64)
        if x.ndim < 2 or x.numel() == 0 or not bool(torch.isfinite(x).all()):
            raise InputError(f"samples have shape {tuple(x.shape)}: give finite ones, [n, channels, …] or [n, d].")
        centred, freedom = _centred(x, classes)
        shape = tuple(x.shape[1:])
        if len(shape) == 1:
            variances = torch.linalg.svdvals(centred).square() / freedom
            rest = torch.zeros(max(shape[0] - len(variances), 0), dtype=torch.float64)
            return cls(torch.cat([variances[: shape[0]], rest]), shape=shape)
        shells, power = _shells(centred, shape[1:], freedom)
        counts = torch.bincount(shells).to(torch.float64)
        radii = torch.arange(len(counts), dtype=torch.float64)
        there = counts > 0
        rows = [torch.bincount(shells, channel, len(counts)) for channel in power]
        rows = [(row / counts.clamp(min=1))[there] for row in rows]
        if robust:
            rows = [capped(row, radii[there].clamp(min=ZERO_FREQUENCY), counts[there]) for row in rows]
        frequencies = (radii / max(shape[1:]))[there].repeat(shape[0])
        return cls(torch.cat(rows), counts[there].repeat(shape[0]), frequencies=frequencies, shape=shape)

    def to_json(self) -> str:
        """Return the spectrum as JSON; ``from_json`` gives the same back, bit for bit."""
        return json_text(
            {
                "format": FORMAT,
                "variances": self.variances.tolist(),
                "multiplicities": self.multiplicities.tolist(),
                "frequencies": None if self.frequencies is None else self.frequencies.tolist(),
                "shape": None if self.shape is None else list(self.shape),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Spectrum:
        """Return the spectrum that ``to_json`` wrote.

        Raises:
            InputError: if the text is no spectrum, or its numbers are wrong; it names the field.
        """
        data = parsed(text, {FORMAT: _StoredSpectrum}, "the spectrum")
        return cls(data.variances, data.multiplicities, frequencies=data.frequencies, shape=data.shape)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spectrum) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __repr__(self) -> str:
        low, high = float(self.variances.min()), float(self.variances.max())
        of = "" if self.shape is None else f" of samples {self.shape}"
        return f"<Spectrum{of}: {self.size:g} modes, variances {low:.3g} to {high:.3g}, mean {self.total:.3g}>"


def radius(sides: Sequence[int]) -> Tensor:
    """Return the frequency of each mode of a discrete Fourier transform in cycles per pixel, float64 [modes]."""
    axes = [torch.fft.fftfreq(side, dtype=torch.float64) for side in sides]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt().flatten()


def _shells(centred: Tensor, sides: tuple[int, ...], freedom: int) -> tuple[Tensor, Tensor]:
    """Return the shell of each mode, int64 [modes], and its variance in each channel, [channels, modes]."""
    power = torch.zeros(centred.shape[1], *sides, dtype=torch.float64)
    axes = tuple(range(2, centred.ndim))
    for part in centred.split(max(1, CHUNK // centred[0].numel())):
        power += torch.fft.fftn(part, dim=axes, norm="ortho").abs().square().sum(0)
    return (radius(sides) * max(sides)).round().long(), power.flatten(1) / freedom


def _centred(samples: Tensor, classes: Any) -> tuple[Tensor, int]:
    """Return the samples less their mean, or that of their class, and the degrees of freedom left."""
    label = torch.zeros(len(samples), dtype=torch.long) if classes is None else torch.as_tensor(classes).cpu()
    if label.shape != (len(samples),):
        raise InputError(f"classes have shape {tuple(label.shape)}: give one for each of the {len(samples)} samples.")
    found, inverse = torch.unique(label, return_inverse=True)
    freedom = len(samples) - len(found)
    if freedom < 1:
        raise InputError(f"{len(samples)} samples of {len(found)} classes say nothing of a variance: give more.")
    sums = torch.zeros(len(found), *samples.shape[1:], dtype=torch.float64).index_add_(0, inverse, samples)
    means = sums / torch.bincount(inverse).view(-1, *[1] * (samples.ndim - 1))
    return samples - means[inverse], freedom


def _checked(name: str, given: Any) -> Tensor:
    try:
        values = torch.as_tensor(np.asarray(given), dtype=torch.float64).clone()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{name} are {given!r}: give a sequence of numbers.") from error
    if values.ndim != 1 or values.numel() == 0:
        raise InputError(
            f"{name} have shape {tuple(values.shape)}: give one number for each kind of mode, at least one."
        )
    if not bool((torch.isfinite(values) & (values >= 0)).all()):
        wrong = values[~(torch.isfinite(values) & (values >= 0))][:4].tolist()
        raise InputError(f"{name} have {wrong} among them: all must be finite and at least 0.")
    return values

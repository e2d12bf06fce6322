"""A Gaussian model with a spectrum: data whose Fourier modes are independent and normal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fewstep.processes import Process
from fewstep.spectra.spectrum import radius


class GaussianField:
    """Samples of ``shape`` with variance r^{−exponent} at the frequency r, and the exact D, usable as a denoiser."""

    def __init__(self, process: Process, shape: Sequence[int], exponent: float = 2.0, mean: float = 0.0) -> None:
        self.process, self.shape, self.mean = process, tuple(shape), mean
        sides = self.shape[1:]
        r = radius(sides).view(sides).clamp(min=0.7 / max(sides))
        self.variances = (r * max(sides)) ** -exponent
        self.axes = tuple(range(-len(sides), 0))

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        gain = alpha * self.variances / (alpha**2 * self.variances + sigma**2)
        return self.mean + self.modes(self.modes(x - alpha * self.mean) * gain, back=True)

    def modes(self, x: Tensor, *, back: bool = False) -> Tensor:
        """Return the orthonormal Fourier coefficients of ``x``, or the field of those."""
        if back:
            return torch.fft.ifftn(x, dim=self.axes, norm="ortho").real
        return torch.fft.fftn(x, dim=self.axes, norm="ortho")

    def unit(self, count: int, seed: int = 0) -> Tensor:
        """Return real fields whose modes all have modulus 1 and a drawn phase, [count, *shape]: noise that is exact."""
        generator = torch.Generator().manual_seed(seed)
        modes = self.modes(torch.randn(count, *self.shape, dtype=torch.float64, generator=generator))
        return self.modes(modes / modes.abs(), back=True)

    def std(self, t: Tensor | float) -> Tensor:
        """Return the standard deviation of x_t in each mode."""
        return torch.sqrt(self.process.alpha(t) ** 2 * self.variances + self.process.sigma(t) ** 2)

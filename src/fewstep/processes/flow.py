"""The rectified flow: a straight line from data to noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fewstep.processes.base import Process, Real, as_float64, positive

__all__ = ["RectifiedFlow"]


class RectifiedFlow(Process):
    r"""x_t = (1 − t)·x_0 + t·ε, with λ = log((1 − t)/t).

    ``shift`` changes no α or σ: it bends the even clock u, t = shift·u / (1 + (shift − 1)·u), in which
    "uniform time" is uniform. Sampling starts at u = 0.999, so that λ is finite; a custom grid
    may start at t = 1, where α = 0.

    Source: Liu et al., Flow Straight and Fast (arXiv 2209.03003); the shift: Esser et al., Scaling
    Rectified Flow Transformers (arXiv 2403.03206), eq. 23.

    Args:
        shift: above 0; 1 leaves the clock even, 3 is Stable Diffusion 3's.

    Raises:
        InputError: if ``shift`` is not finite and positive.
    """

    straight = True

    def __init__(self, shift: float = 1.0) -> None:
        self.shift = positive("shift", shift)
        self.t_min = float(self.from_clock(1e-3))
        self.t_max = float(self.from_clock(0.999))

    def alpha(self, t: Real) -> Tensor:
        """Return α = 1 − t."""
        return 1.0 - as_float64(t)

    def sigma(self, t: Real) -> Tensor:
        """Return σ = t."""
        return as_float64(t).clone()

    def half_logsnr(self, t: Real) -> Tensor:
        """Return λ = log(1 − t) − log t; −∞ at t = 1."""
        t = as_float64(t)
        return torch.log1p(-t) - t.log()

    def time(self, half_logsnr: Real) -> Tensor:
        """Return t = 1/(1 + e^λ)."""
        return torch.sigmoid(-as_float64(half_logsnr))

    def clock(self, t: Real) -> Tensor:
        """Return u = t / (shift − (shift − 1)·t)."""
        t = as_float64(t)
        return t / (self.shift - (self.shift - 1.0) * t)

    def from_clock(self, u: Real) -> Tensor:
        """Return t = shift·u / (1 + (shift − 1)·u)."""
        u = as_float64(u)
        return self.shift * u / (1.0 + (self.shift - 1.0) * u)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able data."""
        return {"name": "flow", "shift": self.shift}

    def __repr__(self) -> str:
        return f"RectifiedFlow(shift={self.shift})"

"""The variance-exploding process of EDM: α = 1, σ = t."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import InputError
from fewstep.processes.base import Process, Real, as_float64, positive

__all__ = ["EDM"]


class EDM(Process):
    r"""x_t = x_0 + t·ε: time is the noise level σ itself, and λ = −log t.

    Source: Karras et al., Elucidating the Design Space (arXiv 2206.00364).

    Args:
        sigma_min: the smallest noise level above zero, ``t_min``.
        sigma_max: the noise level at which sampling starts, ``t_max``.

    Raises:
        InputError: unless 0 < ``sigma_min`` < ``sigma_max`` < ∞.
    """

    t_limit = math.inf
    straight = True

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0) -> None:
        self.t_min = positive("sigma_min", sigma_min)
        self.t_max = positive("sigma_max", sigma_max)
        if self.t_max <= self.t_min:
            raise InputError(f"sigma_max={sigma_max} is not above sigma_min={sigma_min}: swap the two.")

    def alpha(self, t: Real) -> Tensor:
        """Return α = 1."""
        return torch.ones_like(as_float64(t))

    def sigma(self, t: Real) -> Tensor:
        """Return σ = t."""
        return as_float64(t).clone()

    def half_logsnr(self, t: Real) -> Tensor:
        """Return λ = −log t."""
        return -as_float64(t).log()

    def time(self, half_logsnr: Real) -> Tensor:
        """Return t = e^{−λ}."""
        return (-as_float64(half_logsnr)).exp()

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able data."""
        return {"name": "edm", "sigma_min": self.t_min, "sigma_max": self.t_max}

    def __repr__(self) -> str:
        return f"EDM(sigma_min={self.t_min}, sigma_max={self.t_max})"

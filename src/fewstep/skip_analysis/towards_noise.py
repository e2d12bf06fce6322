"""The same ODE run from data to noise: noise takes the data's place, so that every solver and the executor serve."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fewstep.denoiser import Condition, DataPredictor
from fewstep.processes import Process
from fewstep.processes.base import Real, as_float64

__all__ = ["TowardsNoise", "NoisePredictor"]


class TowardsNoise(Process):
    r"""A process with α and σ exchanged and time turned around: t' = t_max − t, α' = σ, σ' = α, λ' = −λ.

    x_t = α'·ε + σ'·x_0 is the noising process of a "data" ε with the "noise" x_0, and the probability-flow ODE is the
    same one. Its times fall from t_max − t_min, where x is the data, to 0, where x is the noise of t_max.

    Args:
        inner: the process that is run backwards.
    """

    ends_at_zero = False

    def __init__(self, inner: Process) -> None:
        self.inner = inner
        self.t_min, self.t_max = 0.0, inner.t_max - inner.t_min
        self.t_limit = self.t_max

    def inner_time(self, t: Real) -> Tensor:
        """Return the time of the inner process."""
        return self.inner.t_max - as_float64(t)

    def alpha(self, t: Real) -> Tensor:
        """Return α' = σ."""
        return self.inner.sigma(self.inner_time(t))

    def sigma(self, t: Real) -> Tensor:
        """Return σ' = α."""
        return self.inner.alpha(self.inner_time(t))

    def half_logsnr(self, t: Real) -> Tensor:
        """Return λ' = −λ."""
        return -self.inner.half_logsnr(self.inner_time(t))

    def time(self, half_logsnr: Real) -> Tensor:
        """Return the time at which λ' is ``half_logsnr``."""
        return (self.inner.t_max - self.inner.time(-as_float64(half_logsnr))).clamp(min=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return the inner process's settings, under a name of its own."""
        return {"name": "towards-noise", "inner": self.inner.to_dict()}

    def __repr__(self) -> str:
        return f"TowardsNoise({self.inner!r})"


class NoisePredictor(DataPredictor):
    """ε̂ = (x − α·D)/σ: what a denoiser says of the noise, as the data prediction of ``TowardsNoise``."""

    def __init__(self, inner: DataPredictor) -> None:
        self.inner = inner
        self.process: Process = TowardsNoise(inner.process)
        self.shape, self.num_classes = inner.shape, inner.num_classes
        self._time = TowardsNoise(inner.process).inner_time

    @property
    def device(self) -> torch.device:
        """Where the inner network lives."""
        return self.inner.device

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition = None) -> Tensor:
        """Return ε̂."""
        time, process = self._time(t), self.inner.process
        return (x_t - process.alpha(time) * self.inner(x_t, time, cond)) / process.sigma(time)

"""The noise strength of stochastic solvers: τ as a function of the grid point, read at each step's end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.checks import as_number, as_real, real, shown
from fewstep.errors import InputError
from fewstep.time_grid import TimeGrid

__all__ = ["GridPoint", "Tau", "as_tau", "constant", "window"]


@dataclass(frozen=True)
class GridPoint:
    """A point of a grid: the time, α, σ and λ there (0-dimensional float64 tensors)."""

    t: Tensor
    alpha: Tensor
    sigma: Tensor
    half_logsnr: Tensor


class Tau(ABC):
    """τ ≥ 0 of each step: 0 is the ODE, 1 the standard reverse SDE; ``str`` is how a solver's settings write it."""

    @abstractmethod
    def at(self, grid: TimeGrid) -> Tensor:
        """Return τ at the end of each interval, float64 [..., N]."""


@dataclass(frozen=True)
class _Constant(Tau):
    value: float

    def at(self, grid: TimeGrid) -> Tensor:
        return torch.full_like(grid.times[..., 1:], self.value)

    def __str__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True)
class _Window(Tau):
    value: float
    low: float
    high: float

    def at(self, grid: TimeGrid) -> Tensor:
        ratio = (grid.sigma / grid.alpha)[..., 1:]
        inside = (ratio >= self.low) & (ratio <= self.high)
        return self.value * inside.to(torch.float64)

    def __str__(self) -> str:
        return f"{self.value!r}@{self.low!r}:{self.high!r}"


@dataclass(frozen=True)
class _Function(Tau):
    function: Callable[[GridPoint], float | Tensor]

    def at(self, grid: TimeGrid) -> Tensor:
        columns = (x[..., 1:].flatten() for x in (grid.times, grid.alpha, grid.sigma, grid.half_logsnr))
        points = [GridPoint(*point) for point in zip(*columns, strict=True)]
        values = [0.0 if torch.isinf(point.half_logsnr) else float(self.function(point)) for point in points]
        tau = torch.tensor(values, dtype=torch.float64)
        if not bool((torch.isfinite(tau) & (tau >= 0)).all()):
            raise InputError(f"tau gave {values}: it must be finite and at least 0 at every point of the grid.")
        return tau.view(grid.times[..., 1:].shape)


def constant(value: float) -> Tau:
    """Return τ = ``value`` everywhere.

    Raises:
        InputError: if the value is negative or not finite.
    """
    hint = "give a finite number of at least 0; 0 is the ODE, 1 the standard SDE"
    return _Constant(real("tau", value, 0.0, hint=hint))


def window(value: float, low: float, high: float) -> Tau:
    """Return τ = ``value`` where σ/α lies in [low, high] and 0 elsewhere.

    The authors of SA-Solver use [0.05, 1] on EDM's CIFAR-10 networks (arXiv 2309.05019, section 6).

    Raises:
        InputError: if the window is reversed or negative, or the value is.
    """
    first, last = as_real(low), as_real(high)
    if first is None or last is None or not 0 <= first < last:
        raise InputError(
            f"the σ/α window is [{shown(low)}, {shown(high)}]: write the lower end first, neither below 0."
        )
    return _Window(constant(value).value, first, last)  # type: ignore[attr-defined]


def as_tau(tau: float | Tau | Callable[[GridPoint], float | Tensor]) -> Tau:
    """Return ``tau`` as a ``Tau``: numbers become constants, functions are asked at each point but a noise-free end."""
    if isinstance(tau, Tau):
        return tau
    if callable(tau) and not isinstance(tau, type):
        return _Function(tau)
    number = as_number(tau)
    if number is not None:
        return constant(number)
    raise InputError(
        f"tau is {shown(tau)}: give a number, fs.tau.constant, fs.tau.window or a function of the grid point."
    )

"""The noise strength of stochastic solvers: τ as a function of the grid point, read at each step's end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.checks import as_number, as_real, real, shown
from fewstep.errors import InputError, unknown_name
from fewstep.time_grid import TimeGrid

__all__ = ["PRESETS", "GridPoint", "Tau", "as_tau", "constant", "preset", "time_window", "window"]


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
class _Steps(Tau):
    values: tuple[float, ...]

    def at(self, grid: TimeGrid) -> Tensor:
        if len(self.values) != grid.steps:
            raise InputError(
                f"tau has length {len(self.values)}, the grid has {grid.steps} steps: give one number for each step."
            )
        return torch.tensor(self.values, dtype=torch.float64).expand(grid.times[..., 1:].shape).clone()

    def __str__(self) -> str:
        return repr(self.values)


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
class _TimeWindow(Tau):
    value: float
    low: float
    high: float

    def at(self, grid: TimeGrid) -> Tensor:
        if grid.process.t_max > 1.0:
            raise InputError(
                f"a window of τ in time is for processes whose times are 0 to 1, not for {grid.process!r}: "
                "write fs.tau.window(1, 0.05, 1), in σ/α."
            )
        times = grid.times[..., 1:]
        return self.value * ((times >= self.low) & (times <= self.high)).to(torch.float64)


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


def time_window(value: float, low: float, high: float) -> Tau:
    """Return τ = ``value`` where the time lies in [low, high] and 0 elsewhere, for processes with times 0 to 1.

    Raises:
        InputError: if the window is reversed or outside 0 to 1, or the value is negative.
    """
    first, last = as_real(low), as_real(high)
    if first is None or last is None or not 0 <= first < last <= 1:
        raise InputError(f"the window of times is [{shown(low)}, {shown(high)}]: write both, the lower first, 0 to 1.")
    return _TimeWindow(constant(value).value, first, last)  # type: ignore[attr-defined]


PRESETS: dict[str, Tau] = {
    "cifar10-edm": window(1.0, 0.05, 1.0),
    "imagenet64-edm": window(1.0, 0.05, 50.0),
    "latent-diffusion": time_window(1.0, 0.2, 0.8),
    "stable-diffusion": time_window(1.0, 0.2, 0.8),
}
"""τ of the authors' experiments by name, for ``preset``."""


def preset(name: str) -> Tau:
    """Return τ of a kind of model by name, 1 in the middle of the trajectory and 0 at both ends.

    ===================  =====================  ==============================================================
    name                 τ = 1 where            source
    ===================  =====================  ==============================================================
    "cifar10-edm"        σ/α in [0.05, 1]       SA-Solver (arXiv 2309.05019), section 6, EDM's networks
    "imagenet64-edm"     σ/α in [0.05, 50]      the interval of EDM's sampler for ImageNet-64 (arXiv 2206.00364,
                                                table 5), which SA-Solver's τ follows
    "latent-diffusion"   t in [0.2, 0.8]        SA-Solver's public code, README, "ldm library"
    "stable-diffusion"   t in [0.2, 0.8]        the same, "diffusers library": timesteps 200 to 800
    ===================  =====================  ==============================================================

    Raises:
        InputError: if there is none of that name.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise unknown_name("τ", name, PRESETS)
    return PRESETS[name]


def as_tau(tau: float | str | Tau | Sequence[float] | Callable[[GridPoint], float | Tensor]) -> Tau:
    """Return ``tau`` as a ``Tau``: numbers become constants, names presets, functions are asked at each point.

    Of a sequence each step takes one number.

    A noise-free end is left out.
    """
    if isinstance(tau, Tau):
        return tau
    if isinstance(tau, str) and tau in PRESETS:
        return PRESETS[tau]
    if callable(tau) and not isinstance(tau, type):
        return _Function(tau)
    number = as_number(tau)
    if number is not None:
        return constant(number)
    if isinstance(tau, (tuple, list)) and tau:
        return _Steps(tuple(constant(value).value for value in tau))  # type: ignore[attr-defined]
    raise InputError(
        f"tau is {shown(tau)}: give a number, one for each step, a preset ({', '.join(PRESETS)}), fs.tau.window or a "
        "function of the grid point."
    )

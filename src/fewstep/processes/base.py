"""The base of all noising processes: α, σ, the half log-SNR and its inverse."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from fewstep.checks import real, shown
from fewstep.errors import InputError

__all__ = ["HOST", "Process", "Real", "as_process", "as_float64", "log_alpha_at", "on_host", "positive"]

HOST = torch.device("cpu")
"""The device on which coefficients are made."""
P = ParamSpec("P")
Made = TypeVar("Made")

Real = float | int | np.ndarray | Tensor
"""Arguments of α, σ and λ: a number, an array or a tensor of any real dtype."""


def on_host(function: Callable[P, Made]) -> Callable[P, Made]:
    """Return ``function``, whose new tensors are on the CPU, whatever ``torch.set_default_device`` says.

    Tables of coefficients are made in float64 on the host, and placed where they are used.
    """

    @wraps(function)
    def made(*args: P.args, **kwargs: P.kwargs) -> Made:
        if torch.compiler.is_compiling() or torch.empty(0).device == HOST:
            return function(*args, **kwargs)
        with HOST:
            return function(*args, **kwargs)

    return made


def as_float64(value: Any) -> Tensor:
    """Return ``value`` (number, sequence, array or tensor) as a float64 tensor: a tensor's own device, else the CPU.

    Raises:
        InputError: if it is nothing of the kind.
    """
    if isinstance(value, Tensor):
        if value.is_complex():
            raise InputError(f"{shown(value)} is complex: give real numbers.")
        return value.to(torch.float64)
    try:
        return torch.as_tensor(value, dtype=torch.float64, device=HOST)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(
            f"{shown(value)} is neither a number nor a sequence of numbers: give one, or a tensor."
        ) from error


def log_alpha_at(half_logsnr: Tensor) -> Tensor:
    """Return log α of a variance-preserving process at ``half_logsnr``: −½·log(1 + e^{−2λ})."""
    return -0.5 * torch.logaddexp(torch.zeros_like(half_logsnr), -2.0 * half_logsnr)


def positive(name: str, value: Any) -> float:
    """Return ``value`` as a float if it is one number, finite and above zero, else raise ``InputError``."""
    return real(name, value, 0.0, above=True)


class Process(ABC):
    r"""A Gaussian noising process x_t = α_t·x_0 + σ_t·ε with ε ~ N(0, 1).

    Time runs from ``t = 0``, the noise-free end (α = 1, σ = 0, λ = ∞), to ``t_limit``, the noisiest
    time that the process is defined at. Sampling starts at ``t_max`` by default.

    Methods take numbers, arrays or tensors and return float64 tensors of the same shape.
    """

    t_min: float
    """The smallest time above the noise-free end that networks of this process are trained on."""
    t_max: float
    """The time at which sampling starts by default."""
    t_limit: float = 1.0
    """The noisiest time at which the process is defined."""
    sigma_data: ClassVar[float] = 0.5
    """The standard deviation of data that analytic first predictions assume: that of images in [−1, 1]."""
    ends_at_zero: bool = True
    """Whether grids end at the noise-free end by default (else at ``t_min``)."""
    straight: bool = False
    """Whether α and σ are straight lines in t, so that x_t moves along one for each pair of data and noise."""

    @abstractmethod
    def alpha(self, t: Real) -> Tensor:
        """Return α_t, the factor of the data."""

    @abstractmethod
    def sigma(self, t: Real) -> Tensor:
        """Return σ_t, the standard deviation of the noise."""

    @abstractmethod
    def half_logsnr(self, t: Real) -> Tensor:
        """Return λ_t = log(α_t/σ_t); it is ∞ at t = 0."""

    @abstractmethod
    def time(self, half_logsnr: Real) -> Tensor:
        """Return the time at which the half log-SNR is ``half_logsnr`` (exact inverse)."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able data; ``fewstep.processes.from_dict`` reads them back."""

    def clock(self, t: Real) -> Tensor:
        """Return the even clock of time ``t``: the variable in which "uniform time" is uniform."""
        return as_float64(t)

    def from_clock(self, u: Real) -> Tensor:
        """Return the time at which the even clock shows ``u`` (inverse of ``clock``)."""
        return as_float64(u)

    def network_time(self, t: Tensor) -> Tensor:
        """Return what a network of this process is usually fed for time ``t``; here ``t`` itself."""
        return t

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Process) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(repr(self))


def as_process(value: Any) -> Process:
    """Return ``value`` if it is a process.

    Raises:
        InputError: if it is not.
    """
    if not isinstance(value, Process):
        raise InputError(f"process is {shown(value)}: give one of fewstep.processes, such as VPLinear().")
    return value

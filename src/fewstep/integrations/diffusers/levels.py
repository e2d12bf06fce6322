"""The levels of a pipeline: the steps from its "sigmas" to times, and diffusers' flags that place them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from fewstep.errors import InputError
from fewstep.integrations.diffusers.formulation import FlowFormulation, Formulation

__all__ = ["beta_quantiles", "flagged", "times_of"]

FLAGS = {
    "use_karras_sigmas": "karras",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta",
    "use_lu_lambdas": "uniform_logsnr",
}
"""diffusers' flags, and what they ask for."""


def flagged(config: Mapping[str, Any]) -> str | None:
    """Return the placement that one of diffusers' flags asks for.

    Raises:
        InputError: if two are set.
    """
    named = [placement for flag, placement in FLAGS.items() if config[flag]]
    if len(named) > 1:
        raise InputError(f"{' and '.join(flag for flag in FLAGS if config[flag])} are set: choose one.")
    return named[0] if named else None


def times_of(formulation: Formulation, config: Mapping[str, Any], sigmas: Tensor) -> Tensor:
    """Return the times of "sigmas" as a pipeline passes them: a flow's are shifted, stretched, and placed by a flag."""
    times = formulation.from_level(sigmas)
    if not isinstance(formulation, FlowFormulation):
        return times
    times = _stretched(times, config["shift_terminal"])
    return _respaced(times, config) if config["grid"] == "simple" else times


def _respaced(times: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Return a flow's times between their first and last one as a flag asks, over σ = t.

    As FlowMatchEuler does, whose ρ is 7, the default of the setting ``rho``.
    """
    named, even = flagged(config), torch.linspace(0.0, 1.0, len(times), dtype=torch.float64)
    high, low = times[0], times[-1]
    if named == "karras":
        root = 1.0 / config["rho"]
        return (high**root + even * (low**root - high**root)) ** config["rho"]
    if named == "exponential":
        return torch.exp(high.log() + even * (low.log() - high.log()))
    return low + beta_quantiles(len(times)) * (high - low) if named == "beta" else times


def _stretched(times: Tensor, terminal: float | None) -> Tensor:
    """Return a flow's times with 1 − t scaled so that the last one is ``terminal``; a lone 1 stays where it is."""
    rest = 1.0 - times
    if not terminal or float(rest[-1]) == 0.0:
        return times
    return 1.0 - rest * ((1.0 - terminal) / rest[-1])


def beta_quantiles(count: int) -> Tensor:
    """Return ``count`` quantiles of Beta(0.6, 0.6), falling from 1 to 0 (arXiv 2407.12173)."""
    return torch.from_numpy(stats.beta.ppf(1.0 - np.linspace(0.0, 1.0, count), 0.6, 0.6))

"""The distance of samples to a reference solution from the same noise."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from fewstep.errors import InputError
from fewstep.metrics.bootstrap import bootstrap_interval

__all__ = ["rmse_interval", "squared_errors"]


def squared_errors(samples: Tensor, reference: Tensor) -> Tensor:
    """Return the mean squared difference of each sample to its reference, float64 [n].

    Raises:
        InputError: if the shapes differ.
    """
    if samples.shape != reference.shape:
        raise InputError(f"samples are {tuple(samples.shape)}, references {tuple(reference.shape)}: pair them.")
    return (samples.double() - reference.double()).square().flatten(1).mean(1)


def rmse_interval(squared: Tensor, *, draws: int = 1000, level: float = 0.95) -> tuple[float, float, float]:
    """Return the root of the mean of squared errors [n], and its bootstrap interval (low, high).

    Raises:
        InputError: if there are no errors.
    """
    values = squared.detach().cpu().numpy().astype(np.float64)
    if values.ndim != 1 or not len(values):
        raise InputError(f"squared errors have shape {values.shape}: give [n] with n of at least 1.")
    low, high = bootstrap_interval(np.mean, values, draws=draws, level=level)
    return float(np.sqrt(values.mean())), float(np.sqrt(low)), float(np.sqrt(high))

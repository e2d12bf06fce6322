"""The distance of samples to a reference solution from the same noise."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from fewstep.errors import InputError

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

    The percentile interval over samples drawn with replacement, the same in each run. Source: Efron & Tibshirani,
    An Introduction to the Bootstrap (1993), chapter 13.

    Raises:
        InputError: if there are no errors.
    """
    values = squared.detach().cpu().numpy().astype(np.float64)
    if values.ndim != 1 or not len(values):
        raise InputError(f"squared errors have shape {values.shape}: give [n] with n of at least 1.")
    random = np.random.default_rng(0)
    means = [values[random.integers(0, len(values), len(values))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(np.sqrt(values.mean())), float(np.sqrt(low)), float(np.sqrt(high))

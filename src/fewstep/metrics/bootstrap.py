"""Bootstrap confidence intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import bootstrap

__all__ = ["bootstrap_interval"]

BATCH = 100


def bootstrap_interval(
    statistic: Callable[..., Any],
    *samples: np.ndarray,
    draws: int = 1000,
    level: float = 0.95,
    vectorized: bool = True,
) -> tuple[float, float]:
    """Return the percentile interval of a statistic over samples drawn with replacement, the same in each run.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    Args:
        statistic: of the samples, with ``axis=`` if it is vectorized.
        *samples: [n] each; several are paired, and drawn together.
        draws: how often is drawn.
        level: the confidence.
        vectorized: whether the statistic takes many draws at once.
    """
    if len(samples[0]) == 1:
        only = float(statistic(*samples, axis=-1) if vectorized else statistic(*samples))
        return only, only
    interval = bootstrap(
        samples,
        statistic,
        paired=len(samples) > 1,
        vectorized=vectorized,
        n_resamples=draws,
        batch=BATCH if vectorized else None,
        confidence_level=level,
        method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)

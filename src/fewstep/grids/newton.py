"""Newton's method on numerical derivatives: the last digits of a bound of few, smooth terms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["newton"]

DIFFERENCE = 1e-3
GAIN = 1e-6
DAMPING = 1e-3


def newton(
    function: Callable[[np.ndarray], np.ndarray], start: np.ndarray, *, iterations: int = 10
) -> tuple[np.ndarray, int]:
    r"""Minimise a function of few variables from where it is nearly least.

    Gradient and Hessian are central differences, all points of which are one batch. The Hessian's eigenvalues are
    taken by their size, and damped by a share of the value that falls tenfold with each move that lowers the function
    and rises tenfold with each that does not.

    Args:
        function: x [B, n] → values [B], for a batch of points.
        start: where to start, [n].
        iterations: how many points are tried at most; it ends when one gained less than a millionth.

    Returns:
        The best point found, [n], and how many were tried.
    """
    n = len(start)
    i, j = np.triu_indices(n, 1)
    unit = DIFFERENCE * np.eye(n)
    shifts = np.concatenate([np.zeros((1, n)), unit, -unit, unit[i] + unit[j], -unit[i] - unit[j]])
    best = trial = start
    lowest, damping = np.inf, DAMPING
    for tried in range(1, iterations + 1):
        values, up, down, both_up, both_down = np.split(function(trial + shifts), np.cumsum([1, n, n, len(i)]))
        value = values[0]
        if value < lowest:
            gain, lowest, best = lowest - value, value, trial
            if gain < GAIN * lowest:
                return best, tried
            gradient = (up - down) / (2.0 * DIFFERENCE)
            mixed = (both_up + both_down - (up + down)[i] - (up + down)[j] + 2.0 * value) / (2.0 * DIFFERENCE**2)
            hessian = np.diag((up + down - 2.0 * value) / DIFFERENCE**2)
            hessian[i, j] = hessian[j, i] = mixed
            curvature, axes = np.linalg.eigh(hessian)
            damping *= 0.1
        else:
            damping *= 10.0
        move = axes @ ((axes.T @ gradient) / (np.abs(curvature) + damping * lowest))
        trial = best - np.clip(move, -1.0, 1.0)
    return best, iterations

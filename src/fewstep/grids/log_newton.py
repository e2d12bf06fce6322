"""Newton's method for a sum of positive terms that are nearly powers: each term's logarithm is made linear."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["log_newton"]

DIFFERENCE = 1e-5
DAMPING, LEAST_DAMPING = 0.1, 1e-6
LONGEST_MOVE = 1.5
INNER = 5
PATIENCE = 3


def log_newton(
    terms: Callable[[np.ndarray], np.ndarray], starts: np.ndarray, *, iterations: int = 24, gain: float = 1e-3
) -> tuple[np.ndarray, np.ndarray, int]:
    r"""Minimise f(x) = Σ_m E_m(x), E_m > 0, from several starts at once.

    The error of an interval is about a power of its length, so log E is nearly linear in the logarithms of the lengths.
    Each iteration takes log E + J·d for it, and minimises the convex Σ_m exp(log E_m + J_m·d) + ½·μ·f·‖d‖² over the
    move d by Newton's method. A move that lowers f is taken and μ falls, else it rises. J is made of differences: all
    starts and their neighbours are one batch for ``terms``.

    Args:
        terms: x [B, n] → E [B, M], for a batch of points.
        starts: where to start, [S, n].
        iterations: how many moves are tried at most.
        gain: it ends when three moves together lowered f at the best point by a smaller share than this.

    Returns:
        The best point found from each start, [S, n], f there, [S], and how many moves were tried.
    """
    count, n = starts.shape
    shifts = np.concatenate([np.zeros((1, n)), DIFFERENCE * np.eye(n)])
    best = trial = starts
    value, damping = np.full(count, np.inf), np.full(count, DAMPING)
    earlier: list[float] = []
    for tried in range(iterations):
        made = np.log(terms((trial[:, None] + shifts).reshape(-1, n))).reshape(count, n + 1, -1)
        logs, slopes = made[:, 0], (made[:, 1:] - made[:, :1]).transpose(0, 2, 1) / DIFFERENCE
        at_trial = np.exp(logs).sum(-1)
        better = at_trial < value
        if not earlier:
            base, slope = logs, slopes
        else:
            damping = np.where(better, np.maximum(0.3 * damping, LEAST_DAMPING), 4.0 * damping)
            base = np.where(better[:, None], logs, base)
            slope = np.where(better[:, None, None], slopes, slope)
        best, value = np.where(better[:, None], trial, best), np.where(better, at_trial, value)
        earlier.append(value.min())
        if tried >= PATIENCE and earlier[-1] > (1.0 - gain) * earlier[-1 - PATIENCE]:
            return best, value, tried
        trial = best + _move(base, slope, damping * value)
    return best, value, iterations


def _move(logs: np.ndarray, slopes: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """Return the move that minimises the damped sum of exponentials, [S, n]."""
    n = slopes.shape[-1]
    move, ridge = np.zeros((len(logs), n)), damping[:, None, None] * np.eye(n)
    for _ in range(INNER):
        size = np.exp(np.minimum(logs + (slopes @ move[..., None])[..., 0], 50.0))
        gradient = (size[:, None] @ slopes)[:, 0] + damping[:, None] * move
        hessian = (slopes * size[..., None]).transpose(0, 2, 1) @ slopes + ridge
        move = move - np.clip(_solved(hessian, gradient), -1.0, 1.0)
    return np.clip(move, -LONGEST_MOVE, LONGEST_MOVE)


def _solved(hessian: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Return hessian⁻¹·gradient, [S, n]; of one that is singular to rounding the least such vector."""
    try:
        return np.linalg.solve(hessian, gradient[..., None])[..., 0]
    except np.linalg.LinAlgError:
        return (np.linalg.pinv(hessian, hermitian=True) @ gradient[..., None])[..., 0]

"""A minimiser for sums of Euclidean norms: Gauss-Newton on weighted squares, from several starts at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["prox_linear"]

Terms = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""x [B, n] → terms [B, M] and groups, one-hot [M, G]."""

DIFFERENCE = 1e-6
PATIENCE = 3


def prox_linear(
    terms: Terms,
    project: Callable[[np.ndarray], np.ndarray],
    starts: np.ndarray,
    *,
    iterations: int = 20,
    inner: int = 12,
    gain: float = 1e-2,
) -> tuple[np.ndarray, np.ndarray, int]:
    r"""Minimise f(x) = Σ_g √(Σ_{m ∈ g} r_m(x)²) over the set that ``project`` maps into.

    f has kinks where a term changes its sign, which quasi-Newton methods and line searches do not like. Each
    iteration makes the terms linear, r + J·d, and minimises Σ_g ‖r_g + J_g·d‖ + ½·ρ·f·‖d‖² over the move d by
    reweighted least squares, whose weights 1/‖r_g + J_g·d‖ are smoothed less and less. A move that lowers f is
    taken and ρ halved, else ρ is multiplied by four. All starts, and the differences for their derivatives, are
    one batch for ``terms``.

    Args:
        terms: the terms and their groups, for a batch of points.
        project: a projection to the points that are allowed, for a batch of points.
        starts: where to start, [S, n].
        iterations: how many moves are tried at most.
        inner: how many times a move's least squares are reweighted; the smoothing is a quarter of the last each time.
        gain: it ends when three moves together lowered f at the best point by a smaller share than this.

    Returns:
        The best point found from each start, [S, n], f there, [S], and how many moves were tried.
    """
    trial = project(starts)
    count, n = trial.shape
    shift = DIFFERENCE * np.eye(n)
    best, value = trial, np.full(count, np.inf)
    rho = np.full(count, 0.3)
    earlier: list[np.ndarray] = []
    for tried in range(iterations):
        points = np.concatenate([trial[:, None], project(trial[:, None] - shift)], axis=1)
        made, group = terms(points.reshape(-1, n))
        made = made.reshape(count, n + 1, -1)
        at_trial = np.sqrt(made[:, 0] ** 2 @ group).sum(-1)
        slopes = (made[:, :1] - made[:, 1:]).transpose(0, 2, 1) / DIFFERENCE
        if not np.isfinite(value).any():
            best, value, residual, slope = trial, at_trial, made[:, 0], slopes
        else:
            better = at_trial < value
            best = np.where(better[:, None], trial, best)
            residual = np.where(better[:, None], made[:, 0], residual)
            slope = np.where(better[:, None, None], slopes, slope)
            value = np.where(better, at_trial, value)
            rho = np.where(better, np.maximum(0.5 * rho, 1e-6), 4.0 * rho)
        earlier.append(value)
        if tried >= PATIENCE and value.min() > (1.0 - gain) * earlier[-1 - PATIENCE].min():
            return best, value, tried
        move = _move(residual, slope, group, rho * value, 0.3 * value / n, inner)
        trial = project(best + np.clip(move, -1.0, 1.0))
    return best, value, iterations


def _move(
    residual: np.ndarray, slope: np.ndarray, group: np.ndarray, damping: np.ndarray, smooth: np.ndarray, inner: int
) -> np.ndarray:
    """Return the move that minimises the damped sum of norms of the linear terms, [S, n]."""
    n = slope.shape[-1]
    move, identity = np.zeros((len(residual), n)), np.eye(n)
    for smaller in range(inner):
        linear = residual + (slope @ move[..., None])[..., 0]
        norm = np.sqrt(linear**2 @ group + (0.25**smaller * smooth[:, None]) ** 2)
        weighted = slope * ((1.0 / norm) @ group.T)[..., None]
        matrix = weighted.transpose(0, 2, 1) @ slope
        ridge = damping + 1e-12 * np.trace(matrix, axis1=1, axis2=2)
        matrix += ridge[:, None, None] * identity
        move = -np.linalg.solve(matrix, weighted.transpose(0, 2, 1) @ residual[..., None])[..., 0]
    return move

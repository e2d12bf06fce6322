"""Gauss-Newton with damping, for problems whose evaluations are runs of a sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from fewstep.calibration.least_squares import FOLDS, NormalEquations, choose_ridge

__all__ = ["LEAST_GAIN", "Point", "Problem", "descend"]

DAMPINGS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Relative to the mean of the Gram matrix's diagonal."""
UNSEEN = 1e-2
"""The first damping of a problem whose residual is of all noises together."""
LEAST_GAIN = 0.01
"""The relative fall of the mean square below which nothing more is gained."""
FACTOR, PATIENCE = 5.0, 7
"""From one damping to the next, and how many are tried in a round."""


@dataclass(frozen=True)
class Point:
    """Parameters, the mean square error there, and what ``Problem.linearise`` needs to know of it."""

    theta: Tensor
    error: float
    detail: Any


class Problem(Protocol):
    """A least-squares problem: minimise the mean square of target − output(θ)."""

    @property
    def max_step(self) -> float:
        """The most that any parameter may move in a round."""

    def evaluate(self, theta: Tensor) -> Point | None:
        """Return the point at θ, or None if θ is not allowed."""

    def linearise(self, point: Point) -> NormalEquations:
        """Return the normal equations of the residual, with ∂output/∂θ as features."""


def descend(
    problem: Problem,
    start: Point,
    rounds: int,
    *,
    least_gain: float = LEAST_GAIN,
    may_go_on: Callable[[], bool] = lambda: True,
    progress: Callable[[Point], None] = lambda point: None,
) -> Point:
    r"""Return the best point after some rounds of θ ← θ + (G + damping·mean(diag G)·1)^{−1}·h.

    The first damping of a round is the one whose linear model is best on noises that it has not seen; the true error
    decides from there.

    Args:
        problem: what to minimise.
        start: a point of it.
        rounds: how often to linearise.
        least_gain: the relative fall of the mean square below which to stop.
        may_go_on: asked before each round.
        progress: called with each new best point.
    """
    best = start
    for _ in range(rounds):
        if not may_go_on():
            break
        equations = problem.linearise(best)
        mean = float(equations.gram.mean(0).diagonal().mean())
        if mean == 0.0:  # nothing that could be changed has an effect
            break
        found = _line(problem, best, equations, _damping(equations, mean))
        if found is None:
            break
        gain = 1.0 - found.error / best.error
        best = found
        progress(best)
        if gain < least_gain:
            break
    return best


def _damping(equations: NormalEquations, mean: float) -> float:
    """Return the first damping: the one of the best linear model on noises that it has not seen, if there are some."""
    if len(equations.energy) < FOLDS:
        return mean * UNSEEN
    choice = choose_ridge(equations, tuple(mean * d for d in DAMPINGS), [equations.gram.shape[1]])
    return choice.ridge if choice.width else mean * DAMPINGS[-1]


def _line(problem: Problem, start: Point, equations: NormalEquations, damping: float) -> Point | None:
    """Return the best of some steps, None if none is better than the start.

    If the first damping is good, smaller ones follow while they are better; if not, larger ones until one is.
    """

    def tried(damping: float) -> Point | None:
        step = equations.solve(damping)
        step = step * min(1.0, problem.max_step / max(float(step.abs().max()), 1e-300))
        found = problem.evaluate(start.theta + step)
        return found if found is not None and found.error < start.error else None

    best = tried(damping)
    factor = FACTOR if best is None else 1.0 / FACTOR
    for _ in range(PATIENCE - 1):
        damping *= factor
        found = tried(damping)
        if best is None:
            best = found
            if best is not None:
                break
        elif found is None or found.error >= best.error:
            break
        else:
            best = found
    return best

"""The search for ρ: a grid or golden section over the deepest skip's factor, and the outermost's if wanted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.optimize import golden
from torch import Tensor

from fewstep import checks
from fewstep.denoiser import DataPredictor
from fewstep.errors import InputError
from fewstep.executor import checked_seeds
from fewstep.journal import Keep, anew, within
from fewstep.metrics.bootstrap import bootstrap_interval
from fewstep.skip import Profile, tuned
from fewstep.skip_analysis.objectives import Objective

__all__ = ["METHODS", "Check", "SearchPoint", "Range", "SearchResult", "evaluations", "golden_section", "search"]

METHODS = ("golden", "grid")
GOLDEN = (3.0 - math.sqrt(5.0)) / 2.0
RESAMPLES = 200
MOST = 10_000
"""The most points of a search."""
Range = tuple[float, float]
"""(low, high) of a ρ; both the same for a fixed one."""


@dataclass(frozen=True)
class SearchPoint:
    """One setting that was evaluated."""

    bottom: float
    top: float
    value: float


@dataclass(frozen=True)
class Check:
    """The best setting against the untuned network on seeds that the search did not see.

    Attributes:
        untuned, tuned: the two values.
        low, high: 95 % bootstrap interval, over the seeds, of tuned − untuned.
    """

    untuned: float
    tuned: float
    low: float
    high: float


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        best: the point with the smallest value; ρ = 1 where no tuning was better.
        points: all points in the order of their evaluation; the first is the untuned network.
        check: on fresh seeds; None if the untuned network was best.
        skips: the number of skips.
    """

    best: SearchPoint
    points: tuple[SearchPoint, ...]
    check: Check | None
    skips: int

    @property
    def profile(self) -> Profile:
        """The best setting, as a profile for networks of as many skips."""
        return Profile(self.best.bottom, self.best.top, skips=self.skips)


def search(
    denoiser: DataPredictor,
    objective: Objective,
    seeds: Sequence[int],
    *,
    bottom: Range = (0.5, 1.0),
    top: Range = (1.0, 1.0),
    method: str = "golden",
    points: int = 6,
    progress: Callable[[SearchPoint], None] = lambda point: None,
    keep: Keep = anew,
) -> SearchResult:
    """Return the ρ that minimises ``objective``; every setting is evaluated on the same seeds.

    The untuned network (ρ = 1) is always evaluated too, and kept if nothing is better. The network is left as it was.

    Args:
        denoiser: the model whose network is tuned; ``objective`` must use the same.
        objective: what to minimise.
        seeds: of every evaluation; the check takes as many new ones, from the largest + 1 on.
        bottom: the range of ρ of the deepest skip.
        top: the range of ρ of the outermost skip. With "grid" all pairs are evaluated; with "golden" ``bottom`` is
            searched first, at top = the end of its range nearer 1, and then ``top`` at the best ``bottom``.
        method: "golden" (for one minimum in the range), or "grid" (even, both ends included).
        points: evaluations of each range, the untuned network not counted; 2 or more.
        progress: called with each point.
        keep: where what the objective is computed from is kept; see ``fewstep.journal``.

    Raises:
        InputError: if a range, the method or the number of points is wrong, or the network has no skips.
    """
    checks.instance(DataPredictor, "denoiser", denoiser, "give an fs.Denoiser")
    checks.instance(Objective, "objective", objective, "give fs.skip_analysis.Frechet, FeatureLoss, or one like them")
    checks.function("keep", keep, "give a journal's, or leave it out")
    checks.function("progress", progress, "give a function of a SearchPoint")
    seeds = checked_seeds(seeds)
    bottom, top, points = _range("bottom", bottom), _range("top", top), checks.whole("points", points, 2, MOST)
    evaluations(bottom, top, method, points)
    done: list[SearchPoint] = []
    with tuned(denoiser, profile=Profile(rho=1.0)) as handle:

        def rows(profile: Profile, which: Sequence[int]) -> Tensor:
            handle.set(profile)
            if keep is anew:
                return objective.rows(which)
            return objective.rows(which, within(keep, f"{profile.factors(len(handle.skips))}"))

        @cache
        def value(below: float, above: float) -> float:
            point = SearchPoint(below, above, objective.value(rows(Profile(below, above), seeds)))
            done.append(point)
            progress(point)
            return point.value

        value(1.0, 1.0)
        if method == "grid":
            for pair in itertools.product(_even(bottom, points), _even(top, points)):
                value(*pair)
        else:
            above = min(top, key=lambda rho: abs(1.0 - rho))
            below = golden_section(lambda rho: value(rho, above), bottom, points)
            value(below, above)
            golden_section(lambda rho: value(below, rho), top, points)
        best = min(done, key=lambda point: point.value)
        check = None
        if (best.bottom, best.top) != (1.0, 1.0):
            fresh = range(max(seeds) + 1, max(seeds) + 1 + len(seeds))
            profiles = Profile(rho=1.0), Profile(best.bottom, best.top)
            check = _check(objective, *(rows(profile, fresh) for profile in profiles))
    return SearchResult(best, tuple(done), check, len(handle.skips))


def evaluations(bottom: Range, top: Range, method: str, points: int) -> int:
    """Return how often ``search`` evaluates its objective at most: untuned, at the points, and twice for the check.

    Raises:
        InputError: if a range, the method or the number of points is wrong.
    """
    bottom, top, points = _range("bottom", bottom), _range("top", top), checks.whole("points", points, 2, MOST)
    checks.as_word("method", method, METHODS)
    counts = [1 if low == high else points for low, high in (bottom, top)]
    if method == "grid":
        return 3 + counts[0] * counts[1]
    return 3 + counts[0] + (counts[1] if counts[1] > 1 else 0)


def _range(name: str, value: Any) -> Range:
    """Return a range as two floats.

    Raises:
        InputError: if it is none.
    """
    ends = list(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else []
    numbers = [checks.as_real(end) for end in ends]
    low, high = numbers if len(numbers) == 2 else (None, None)
    if low is None or high is None or not (math.isfinite(high) and 0 <= low <= high):
        shown = f"{low:g}:{high:g}" if low is not None and high is not None else checks.shown(value)
        raise InputError(f"{name} is {shown}: give low:high with 0 ≤ low ≤ high.")
    return low, high


def golden_section(function: Callable[[float], float], within: Range, points: int) -> float:
    """Return the best of ``points`` arguments of a function with one minimum in a range, by golden-section search.

    Each evaluation after the second leaves 0.618 of the interval. With a fixed range that value is the answer.
    Source: Kiefer, Sequential Minimax Search for a Maximum (1953).
    """
    checks.function("function", function, "give a function of a number")
    points = checks.whole("points", points, 2, MOST)
    low, high = _range("within", within)
    if low == high:
        return low
    values = {low: math.inf, high: math.inf}  # The ends are where SciPy's bracket needs them, and not evaluated.

    def value(x: float) -> float:
        if x not in values:
            values[x] = function(float(x))
        return values[x]

    golden(value, brack=(low, low + GOLDEN * (high - low), high), tol=0.0, maxiter=points - 2)
    return float(min(values, key=values.__getitem__))


def _check(objective: Objective, untuned: Tensor, tuned: Tensor) -> Check:
    def difference(picked: np.ndarray) -> float:
        return objective.value(tuned[picked]) - objective.value(untuned[picked])

    low, high = bootstrap_interval(difference, np.arange(len(untuned)), draws=RESAMPLES, vectorized=False)
    return Check(objective.value(untuned), objective.value(tuned), low, high)


def _even(within: Range, points: int) -> list[float]:
    low, high = within
    if low == high:
        return [low]
    return [low + (high - low) * i / (points - 1) for i in range(points - 1)] + [high]

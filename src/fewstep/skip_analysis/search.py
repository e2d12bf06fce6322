"""The search for ρ: a grid or golden section over the deepest skip's factor, in windows of noise and over τ."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
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

__all__ = [
    "METHODS",
    "Check",
    "Range",
    "SearchPoint",
    "SearchResult",
    "Window",
    "evaluations",
    "golden_section",
    "search",
]

METHODS = ("golden", "grid")
GOLDEN = (3.0 - math.sqrt(5.0)) / 2.0
RESAMPLES = 200
MOST = 10_000
"""The most points of a search."""
Range = tuple[float, float]
"""(low, high) of a ρ; both the same for a fixed one."""
Window = tuple[float | None, float | None] | None
"""(low, high) in σ/α, either None for open; None is everywhere."""


@dataclass(frozen=True)
class SearchPoint:
    """One setting that was evaluated.

    Attributes:
        bottom, top: ρ of the deepest and the outermost skip; both 1 for the untuned network.
        value: of the objective.
        window: the noise levels σ/α at which skips are scaled; None is everywhere.
        tau: the noise strength of the solver, where several were searched.
    """

    bottom: float
    top: float
    value: float
    window: Window = None
    tau: float | str | None = None

    @property
    def tuned(self) -> bool:
        """Whether a skip is scaled."""
        return (self.bottom, self.top) != (1.0, 1.0)

    @property
    def profile(self) -> Profile:
        """The setting as a profile."""
        return Profile(self.bottom, self.top, sigma_window=self.window)


@dataclass(frozen=True)
class Check:
    """The best setting against the best without tuning, on seeds that the search did not see.

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
        return replace(self.best.profile, skips=self.skips)


def search(
    denoiser: DataPredictor,
    objective: Objective | Mapping[float | str, Objective],
    seeds: Sequence[int],
    *,
    bottom: Range = (0.5, 1.0),
    top: Range = (1.0, 1.0),
    windows: Sequence[Window] = (None,),
    method: str = "golden",
    points: int = 6,
    progress: Callable[[SearchPoint], None] = lambda point: None,
    keep: Keep = anew,
) -> SearchResult:
    """Return the ρ that minimises ``objective``; every setting is evaluated on the same seeds.

    ρ is searched in each window and for each τ anew. The untuned network (ρ = 1) is always evaluated too, and kept if
    nothing is better. The network is left as it was.

    Source: the windows are the disjoint intervals of σ of Skip-Tuning (arXiv 2402.15170, section 4); one that is open
    above scales skips at high noise alone, one that is open below at low noise alone.

    Args:
        denoiser: the model whose network is tuned; ``objective`` must use the same.
        objective: what to minimise; for a search together with τ one for each τ, whose plans differ in it.
        seeds: of every evaluation; the check takes as many new ones, from the largest + 1 on.
        bottom: the range of ρ of the deepest skip.
        top: the range of ρ of the outermost skip. With "grid" all pairs are evaluated; with "golden" ``bottom`` is
            searched first, at top = the end of its range nearer 1, and then ``top`` at the best ``bottom``.
        windows: the noise levels at which skips are scaled, (low, high) in σ/α as a ``Profile`` takes them; None is
            everywhere.
        method: "golden" (for one minimum in the range), or "grid" (even, both ends included).
        points: evaluations of each range, the untuned network not counted; 2 or more.
        progress: called with each point.
        keep: where what the objective is computed from is kept; see ``fewstep.journal``.

    Raises:
        InputError: if a range, a window, the method or the number of points is wrong, or the network has no skips.
    """
    checks.instance(DataPredictor, "denoiser", denoiser, "give an fs.Denoiser")
    checks.function("keep", keep, "give a journal's, or leave it out")
    checks.function("progress", progress, "give a function of a SearchPoint")
    objectives = _objectives(objective)
    seeds = checked_seeds(seeds)
    windows = _windows(windows)
    bottom, top, points = _range("bottom", bottom), _range("top", top), checks.whole("points", points, 2, MOST)
    evaluations(bottom, top, method, points)
    done: list[SearchPoint] = []
    with tuned(denoiser, profile=Profile(rho=1.0)) as handle:

        def rows(at: SearchPoint, which: Sequence[int]) -> Tensor:
            handle.set(at.profile)
            if keep is anew:
                return objectives[at.tau].rows(which)
            where = "" if at.window is None else f", σ/α {at.window}"
            where += "" if at.tau is None else f", τ {at.tau}"
            return objectives[at.tau].rows(which, within(keep, f"{at.profile.factors(len(handle.skips))}{where}"))

        @cache
        def value(tau: float | str | None, window: Window, below: float, above: float) -> float:
            if (below, above) == (1.0, 1.0) and window is not None:
                return value(tau, None, 1.0, 1.0)
            point = SearchPoint(below, above, math.nan, window, tau)
            point = replace(point, value=objectives[tau].value(rows(point, seeds)))
            done.append(point)
            progress(point)
            return point.value

        for tau in objectives:
            value(tau, None, 1.0, 1.0)
            for window in windows:
                _over_rho(partial(value, tau, window), bottom, top, method, points)
        best = min(done, key=lambda point: point.value)
        check = None
        if best.tuned:
            untuned = min((point for point in done if not point.tuned), key=lambda point: point.value)
            fresh = range(max(seeds) + 1, max(seeds) + 1 + len(seeds))
            check = _check(objectives[best.tau], rows(untuned, fresh), rows(best, fresh))
    return SearchResult(best, tuple(done), check, len(handle.skips))


def _over_rho(value: Callable[[float, float], float], bottom: Range, top: Range, method: str, points: int) -> None:
    """Evaluate a function of ρ of the deepest and the outermost skip over their ranges."""
    if method == "grid":
        for pair in itertools.product(_even(bottom, points), _even(top, points)):
            value(*pair)
        return
    above = min(top, key=lambda rho: abs(1.0 - rho))
    below = golden_section(lambda rho: value(rho, above), bottom, points)
    value(below, above)
    golden_section(lambda rho: value(below, rho), top, points)


def evaluations(
    bottom: Range, top: Range, method: str, points: int, *, windows: Sequence[Window] = (None,), taus: int = 1
) -> int:
    """Return how often ``search`` evaluates its objective at most: untuned, at the points, and twice for the check.

    Raises:
        InputError: if a range, a window, the method or the number of points is wrong, or there are too many.
    """
    bottom, top, points = _range("bottom", bottom), _range("top", top), checks.whole("points", points, 2, MOST)
    checks.as_word("method", method, METHODS)
    counts = [1 if low == high else points for low, high in (bottom, top)]
    each = counts[0] * counts[1] if method == "grid" else counts[0] + (counts[1] if counts[1] > 1 else 0)
    return 2 + checks.whole("taus", taus, 1, MOST) * (1 + len(_windows(windows)) * each)


def _objectives(objective: Any) -> dict[Any, Objective]:
    """Return the objective of each τ; of one alone the τ is None.

    Raises:
        InputError: if one is no objective, or there is none.
    """
    objectives = dict(objective) if isinstance(objective, Mapping) else {None: objective}
    if not objectives:
        raise InputError("objective is empty: give one for each τ.")
    for one in objectives.values():
        checks.instance(Objective, "objective", one, "give fs.skip_analysis.Frechet, FeatureLoss, or one like them")
    return objectives


def _windows(windows: Any) -> tuple[Window, ...]:
    """Return the windows as profiles have them, each once.

    Raises:
        InputError: if there is none, or one is no window.
    """
    if not isinstance(windows, Sequence) or isinstance(windows, (str, bytes)) or not windows:
        raise InputError(f"windows is {checks.shown(windows)}: give some, as [None, (0.05, 1.0), (1.0, None)].")
    return tuple(dict.fromkeys(Profile(sigma_window=window).sigma_window for window in windows))


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

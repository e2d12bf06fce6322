"""The verdict: the winner against the model's default, on noises that the search has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fewstep.metrics.bootstrap import bootstrap_interval
from fewstep.tuning.objectives import DistanceToImages, Objective
from fewstep.tuning.result import Value, Verdict

__all__ = ["equal_calls", "verdict_of"]


def verdict_of(
    objective: Objective,
    default: str,
    calls: int,
    rows: Callable[[int | None], np.ndarray | None],
    rungs: Sequence[int],
) -> Verdict:
    """Return the verdict.

    Args:
        objective: what was made small.
        default: the name of the default.
        calls: of the winner.
        rows: the number of the default's calls to its rows [n, d], None to the winner's; None where the default cannot
            be run in so many.
        rungs: the numbers of calls at which the default is measured, rising, until one more than reaches the winner.
    """
    winner, before = rows(None), rows(calls)
    assert winner is not None and before is not None
    by_calls = {calls: before}
    target, reached = objective.value(winner), False
    for number in rungs:
        if reached:
            break
        reached = min(objective.value(found) for found in by_calls.values()) <= target
        further = rows(number)
        if further is not None:
            by_calls[number] = further
    gain = objective.gain(before, winner)

    def equal(chosen: np.ndarray) -> float:
        values = {number: objective.value(found[chosen]) for number, found in by_calls.items()}
        return equal_calls(values, objective.value(winner[chosen]))

    most, places = max(by_calls), np.arange(len(winner))

    def capped(chosen: np.ndarray) -> float:
        return min(equal(chosen), float(most))

    low, high = bootstrap_interval(capped, places, draws=objective.draws, vectorized=False)
    equivalent = equal(places)
    return Verdict(
        metric=objective.name,
        noises=len(winner),
        default=default,
        winner=_value(objective, winner),
        before=_value(objective, before),
        gain=Value(*gain),
        better=gain[1] > objective.no_gain,
        equal_calls=equivalent if math.isfinite(equivalent) else None,
        equal_low=low,
        equal_high=high,
        most=most,
        default_values={number: objective.shown(objective.value(found)) for number, found in by_calls.items()},
        kid=(objective.kid(winner), objective.kid(before)) if isinstance(objective, DistanceToImages) else None,
    )


def equal_calls(values: Mapping[int, float], target: float) -> float:
    """Return the number of calls at which ``values`` reach ``target``, interpolated between two; ∞ if none does.

    Between two numbers of calls a positive value is taken to fall as a power of the number.
    """
    before: tuple[int, float] | None = None
    for calls, value in sorted(values.items()):
        if value <= target:
            if before is None:
                return float(calls)
            upper, lower = before[1], value
            logarithmic = min(upper, lower, target) > 0
            scale = math.log if logarithmic else float
            share = (scale(upper) - scale(target)) / max(scale(upper) - scale(lower), 1e-12)
            return float(before[0] * (calls / before[0]) ** min(max(share, 0.0), 1.0))
        before = calls, value
    return math.inf


def _value(objective: Objective, rows: np.ndarray) -> Value:
    return Value(objective.shown(objective.value(rows)), *objective.interval(rows))

"""How a budget is spent: never more than there is, and refused where it is enough for nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.errors import InputError
from fewstep.tuning.schedule import RUNGS, Schedule, ladder


def cost(schedule: Schedule, calls: int, to_solution: bool) -> int:
    """Network calls of the search and the verdict, at most, without a calibration."""
    steps = schedule.reference_steps if to_solution else 0
    seen, total = 0, schedule.noises * (steps + calls)
    for one in schedule.rounds:
        total += one.candidates * (one.noises - seen) * calls
        seen = one.noises
    ladders = sum(ladder(calls, 4 * calls))
    return total + schedule.fresh * (steps + 2 * calls + ladders)


@settings(max_examples=200, deadline=None)
@given(st.integers(100, 50_000), st.integers(2, 20), st.booleans())
def test_it_is_not_overspent(budget, calls, to_solution):
    try:
        schedule = Schedule.of(budget, calls, pool=120, to_solution=to_solution)
    except InputError:
        return
    least = schedule.fresh == 2 or schedule.noises == 1
    spent = cost(schedule, calls, to_solution)
    fit = 0.4 * budget if schedule.analytic else 0
    assert least or spent + fit <= 1.05 * budget + schedule.noises * calls
    assert list(schedule.rounds) == sorted(schedule.rounds, key=lambda one: one.noises)
    assert all(one.candidates >= 1 for one in schedule.rounds)


def test_more_is_spent_on_everything():
    few, many = (Schedule.of(budget, 8, pool=120, to_solution=True) for budget in (1500, 30_000))
    assert many.noises > few.noises and many.fresh > few.fresh and len(many.analytic) > len(few.analytic)


def test_a_budget_too_small_for_one_candidate():
    with pytest.raises(
        InputError, match=r"budget is 50 network calls, which is too small for one candidate of 8 calls"
    ):
        Schedule.of(50, 8, pool=120, to_solution=True)


def test_the_ladder():
    assert ladder(8, 100) == [round(8 * rung) for rung in RUNGS]
    assert ladder(8, 12) == [10, 12]
    assert ladder(1, 100) == [2, 3, 4]

"""The search for a grid: many starts, each with its rows fitted, then descent over the interior times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from fewstep.calibration.gauss_newton import Point, descend
from fewstep.calibration.least_deviation import least_deviation
from fewstep.calibration.times_problem import TimesProblem
from fewstep.errors import InputError
from fewstep.grids import karras, optimized, quadratic_time, uniform_logsnr, uniform_time
from fewstep.time_grid import TimeGrid

__all__ = ["Tried", "search_times", "some_of", "starts"]

Tried = tuple[str, float]
"""A start of the search, and its root mean square error with fitted rows."""

LAST = (0.7, 1.4, 2.1, 2.8)
"""Distances in λ from the family's last finite time to the reference's."""
BENDS = (-1.5, -0.75, 0.0)
"""Rates at which the family's steps in λ shrink towards the data."""
FINALISTS, FIRST_ROUNDS, LAST_ROUNDS = 3, 3, 10
"""``FINALISTS`` starts are refined for ``FIRST_ROUNDS`` rounds, the best of them for ``LAST_ROUNDS`` more."""
NOISES, VALUES = 16, 4096
"""Searches and derivatives run on so many noises, or as many as have so many values in all."""


def starts(problem: TimesProblem) -> Iterator[tuple[str, TimeGrid]]:
    """Yield grids that share the given grid's ends and number of steps: that grid, those by rule, and a family."""
    given = problem.placement.given
    process, steps = given.process, given.steps
    end = "zero" if given.ends_at_zero else float(given.times[-1])
    makers: dict[str, Callable[..., TimeGrid]] = {
        "uniform_logsnr": partial(uniform_logsnr, process, steps),
        "uniform_time": partial(uniform_time, process, steps),
        "quadratic_time": partial(quadratic_time, process, steps),
        "karras": partial(karras, process, steps),
        "optimized": partial(optimized, process, problem.tables.solver, steps),
        "optimized, latents": partial(optimized, process, problem.tables.solver, steps, spectrum="latents"),
        "optimized, error_power=1": partial(optimized, process, problem.tables.solver, steps, error_power=1),
        "optimized, error_power=2": partial(optimized, process, problem.tables.solver, steps, error_power=2),
    }
    yield "given", given
    found = least_deviation(problem.reference, problem.which, given)
    if found is not None:
        yield "least deviation", found
    for name, make in makers.items():
        try:
            times = make(end=end).times.clone()
            times[0] = given.times[0]
            yield name, TimeGrid(process, times)
        except InputError:
            continue  # This rule has no grid between these ends.
    for last in LAST if given.ends_at_zero else LAST[:1]:
        for bend in BENDS:
            grid = problem.placement.family(last, bend)
            if grid is not None:
                yield f"family, last={last}, bend={bend}", grid


def search_times(
    problems: Sequence[tuple[str, TimesProblem]],
    may_go_on: Callable[[], bool],
    progress: Callable[[float], None],
) -> tuple[TimesProblem, TimeGrid, list[Tried]]:
    """Return the problem of the least error, the best grid found for it, and the starts in the order of their errors.

    Args:
        problems: the error as a function of the times, with the name of what else differs between them.
        may_go_on: whether there is budget left; asked before every start but the first, and before every round.
        progress: called with the least root mean square error so far.
    """
    found: list[tuple[str, TimesProblem, Point]] = []
    least = float("inf")

    def noted(point: Point) -> None:
        nonlocal least
        least = min(least, point.error)
        progress(least**0.5)

    for label, problem in problems:
        for name, grid in starts(problem):
            if found and not may_go_on():
                break
            found.append((", ".join(filter(None, (label, name))), problem, problem.at(grid)))
            noted(found[-1][2])
    found.sort(key=lambda entry: entry[2].error)
    best = found[0][1:]
    movable = [e[1:] for e in found if e[1].placement.given.steps > 1 and e[1].placement.grid(e[2].theta) is not None]

    def refined(entry: tuple[TimesProblem, Point], rounds: int) -> tuple[TimesProblem, Point]:
        problem, point = entry
        return problem, descend(problem, point, rounds, may_go_on=may_go_on, progress=noted)

    if movable:
        short = [refined(entry, FIRST_ROUNDS) for entry in movable[:FINALISTS]]
        last = refined(min(short, key=lambda entry: entry[1].error), LAST_ROUNDS)
        best = min(best, last, key=lambda entry: entry[1].error)
    problem, point = best
    return problem, point.detail.table.plan.grid, [(name, point.error**0.5) for name, _, point in found]


def some_of(which: Tensor, values: int) -> Tensor:
    """Return those of the noises to fit on that searches and derivatives run on, evenly taken.

    Args:
        which: the noises to fit on.
        values: how many values a sample has.
    """
    count = min(len(which), max(NOISES, -(-VALUES // values)))
    return which[torch.linspace(0, len(which) - 1, count).round().long()]

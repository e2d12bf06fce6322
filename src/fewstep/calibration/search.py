"""The search for a grid: many starts, each with its rows fitted, then descent over the interior times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from fewstep.calibration.equal_turning import equal_turning
from fewstep.calibration.gauss_newton import Point, descend
from fewstep.calibration.interior_times import InteriorTimes
from fewstep.calibration.least_deviation import least_deviation
from fewstep.calibration.times_problem import TimesProblem
from fewstep.errors import InputError
from fewstep.grids import karras, optimized, quadratic_time, uniform_logsnr, uniform_time
from fewstep.plan import Plan
from fewstep.solvers import IPNDM, DPMSolverPP, UniPC
from fewstep.spectra import Spectrum
from fewstep.time_grid import TimeGrid

__all__ = ["Tried", "search_times", "some_of", "starts", "untuned", "with_one_more"]

Tried = tuple[str, float]
"""A start of the search, and its root mean square error with fitted rows."""

SPECTRAL = (IPNDM(3), UniPC(3), DPMSolverPP(2))
"""Solvers whose grids for the spectrum are starts: fitted rows depend on the grid, hardly on whose rows they were."""
LAST = (0.7, 1.4, 2.1, 2.8)
"""Distances in λ from the family's last finite time to the reference's."""
BENDS = (-1.5, -0.75, 0.0)
"""Rates at which the family's steps in λ shrink towards the data."""
PROMISING = 7
"""So many starts are tried with every number of formulas, the rest with the ``CONTENDERS`` best of these alone."""
CONTENDERS = 2
FINALISTS, FIRST_ROUNDS, LAST_ROUNDS = 2, 2, 4
"""``FINALISTS`` starts are refined for ``FIRST_ROUNDS`` rounds, the best of them for ``LAST_ROUNDS`` more."""
NOISES, VALUES = 16, 4096
"""Searches and derivatives run on so many noises, or as many as have so many values in all."""


def starts(problem: TimesProblem) -> Iterator[tuple[str, TimeGrid]]:
    """Yield grids that share the given grid's ends and number of steps, the most promising first.

    That grid; those optimised for the spectrum of the reference's samples; those read off its trajectories; those by
    rule; a family.
    """
    given, solver = problem.placement.given, problem.tables.solver
    process, steps = given.process, given.steps
    yield "given", given
    if problem.spectrum is not None:
        best = partial(optimized, process, steps=steps, spectrum=problem.spectrum)
        yield from _made(given, {"spectrum": partial(best, solver=solver)})
        others = [other for other in SPECTRAL if other != solver]
        yield from _made(given, {f"spectrum, {other}": partial(best, solver=other) for other in others})
    for name, read in (("least deviation", least_deviation), ("equal turning", equal_turning)):
        found = read(problem.reference, problem.which, given)
        if found is not None:
            yield name, found
    rules: dict[str, Callable[..., TimeGrid]] = {
        "uniform_logsnr": uniform_logsnr,
        "uniform_time": uniform_time,
        "quadratic_time": quadratic_time,
        "karras": karras,
        "optimized": partial(optimized, solver=solver),
        "optimized, latents": partial(optimized, solver=solver, spectrum="latents"),
        "optimized, error_power=1": partial(optimized, solver=solver, error_power=1),
        "optimized, error_power=2": partial(optimized, solver=solver, error_power=2),
    }
    yield from _made(given, {name: partial(rule, process, steps=steps) for name, rule in rules.items()})
    for last in LAST if given.ends_at_zero else LAST[:1]:
        for bend in BENDS:
            grid = problem.placement.family(last, bend)
            if grid is not None:
                yield f"family, last={last}, bend={bend}", grid


def untuned(given: TimeGrid, spectrum: Spectrum | None) -> Iterator[Plan]:
    """Yield the plans of ``SPECTRAL`` solvers on grids for the spectrum: the best ones known without a fit."""
    if spectrum is None:
        return
    for solver in SPECTRAL:
        best = partial(optimized, given.process, solver, given.steps, spectrum=spectrum)
        for _, grid in _made(given, {"spectrum": best}):
            try:
                yield solver.plan(grid)
            except InputError:  # Noise predictions say nothing where α = 0.
                continue


def _made(given: TimeGrid, makers: Mapping[str, Callable[..., TimeGrid]]) -> Iterator[tuple[str, TimeGrid]]:
    """Yield the grids that there are between the ends of ``given``."""
    end = "zero" if given.ends_at_zero else float(given.times[-1])
    for name, make in makers.items():
        try:
            times = make(end=end).times.clone()
            times[0] = given.times[0]
            yield name, TimeGrid(given.process, times)
        except InputError:
            continue  # This rule has no grid between these ends.


def search_times(
    problems: Sequence[tuple[str, TimesProblem]],
    may_go_on: Callable[[], bool],
    progress: Callable[[float], None],
) -> tuple[TimesProblem, TimeGrid, list[Tried]]:
    """Return the problem of the least error, the best grid found for it, and the starts in the order of their errors.

    At the end one more formula is tried between the last of the best grid and its first call, as long as that helps.

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

    def tried(label: str, problem: TimesProblem, places: Iterable[tuple[str, TimeGrid]]) -> float:
        """Try some starts of a problem, and return the least error among them."""
        errors = [float("inf")]
        for name, grid in places:
            if found and not may_go_on():
                break
            found.append((", ".join(filter(None, (label, name))), problem, problem.at(grid)))
            noted(found[-1][2])
            errors.append(found[-1][2].error)
        return min(errors)

    places = [starts(problem) for _, problem in problems]
    first = [tried(*one, islice(place, PROMISING)) for one, place in zip(problems, places, strict=True)]
    for k in sorted(range(len(problems)), key=first.__getitem__)[:CONTENDERS]:
        tried(*problems[k], places[k])
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
    by_count = {other.tables.count: other for _, other in problems}
    while (longer := by_count.get(problem.tables.count + 1)) is not None:
        grid = with_one_more(point.detail.table.plan.grid, problem.tables.count, longer.placement)
        extended = None if grid is None else refined((longer, longer.at(grid)), FIRST_ROUNDS)
        if extended is None or extended[1].error >= point.error:
            break
        problem, point = extended
        noted(point)
    return problem, point.detail.table.plan.grid, [(name, point.error**0.5) for name, _, point in found]


def with_one_more(grid: TimeGrid, formulas: int, placement: InteriorTimes) -> TimeGrid | None:
    """Return ``grid`` with one more time, halfway in λ from its last formula to its first call; None if too close.

    Without a formula as yet it is halfway from the first call to the second.
    """
    if grid.steps < 2:
        return None
    interior = placement.read(grid)
    times = torch.cat([torch.tensor([placement.lowest], dtype=torch.float64), interior])
    place = min(max(formulas - 1, 0), len(times) - 2)
    middle = times[place : place + 2].mean(0, keepdim=True)
    return placement.grid(torch.cat([interior[:place], middle, interior[place:]]))


def some_of(which: Tensor, values: int) -> Tensor:
    """Return those of the noises to fit on that searches and derivatives run on, evenly taken.

    Args:
        which: the noises to fit on.
        values: how many values a sample has.
    """
    count = min(len(which), max(NOISES, -(-VALUES // values)))
    return which[torch.linspace(0, len(which) - 1, count).round().long()]

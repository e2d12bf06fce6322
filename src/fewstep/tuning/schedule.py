"""The spending of a budget of network calls: noises, candidates, rounds, calibration and verdict."""

from __future__ import annotations

from dataclasses import dataclass

from fewstep.errors import InputError

__all__ = ["Round", "Schedule", "ladder", "steps_of_solutions"]

FOR_VERDICT, FOR_CALIBRATION = 0.35, 0.4
"""Shares of the budget."""
LESS_FOR_VERDICT, MOST_FOR_CALIBRATION = 0.25, 0.55
"""Shares where a calibration would not fit otherwise: it gains more than anything else."""
MOST_STEPS, LEAST_STEPS = 60, 3
"""Calls of a noise's solution: at most, and in units of the plan's calls at least."""
PER_STEP = 60
"""The budget has room for so many solutions."""
NOISES, FRESH, FITTED = 32, 64, 48
"""The most noises of the search, the verdict and a calibration; for rows that are not separate ``SETS`` times more."""
SETS, LEAST_SET = 16, 16
LEAST_FITTED = 8
"""The least noises of a calibration."""
LEAST_FIT_STEPS = 24
"""The least calls of a solution in a calibration, and not more than those of other solutions."""
TRIALS = 12
"""Starts of the search for times in a calibration."""
FINAL_ROUNDS = 12
"""Fitting final samples costs about so many times calls² for each noise."""
ANALYTIC = (1, 0, 2)
"""First predictions that are formulas, in each of the calibrations that there is room for."""
HALVINGS = ((4, 1.0), (2, 1 / 3), (1, 1 / 9))
"""Rounds: the share of noises (one in …) and of candidates."""
RUNGS = (1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
"""Numbers of calls at which the default is measured until it reaches the winner, in units of the winner's."""
VARIANTS = 8
"""Settings of guidance and skips that are tried in a round."""


@dataclass(frozen=True)
class Round:
    """A round of successive halving: the first noises of the search, and how many candidates it measures."""

    noises: int
    candidates: int


def steps_of_solutions(
    budget: int, calls: int, *, to_solution: bool, sets: bool = False, reference_steps: int | None = None
) -> int:
    """Return the steps of solutions and calibrations under a budget; the arguments are those of ``Schedule.of``.

    Raises:
        InputError: if the budget is too small for one candidate.
    """
    steps = min(MOST_STEPS, max(LEAST_STEPS * calls, budget // PER_STEP))
    steps = steps if reference_steps is None else reference_steps
    solution, noises = steps if to_solution else 0, LEAST_SET if sets else 1
    least = noises * (solution + 2 * calls) + max(2, noises) * (solution + 3 * calls)
    if budget < least:
        raise InputError(
            f"budget is {budget} network calls, which is too small for one candidate of {calls} calls: give "
            f"{least} or more."
        )
    return steps


@dataclass(frozen=True)
class Schedule:
    """What a budget is spent on.

    Attributes:
        reference_steps: calls of the solution of a noise; 0: no solutions.
        rounds: of successive halving.
        analytic: of each calibration, how many first predictions are formulas.
        fitted: noises of a calibration.
        fit_steps: calls of a solution in a calibration.
        fit_budget: the network calls after which a calibration begins no new trial.
        final: whether calibrations fit final samples, not rows alone.
        fresh: noises of the verdict.
    """

    reference_steps: int
    rounds: tuple[Round, ...]
    analytic: tuple[int, ...]
    fitted: int
    fit_steps: int
    fit_budget: int
    final: bool
    fresh: int

    @property
    def noises(self) -> int:
        """All noises of the search."""
        return self.rounds[-1].noises

    @classmethod
    def of(
        cls,
        budget: int,
        calls: int,
        *,
        pool: int,
        to_solution: bool,
        sets: bool = False,
        variants: bool = False,
        reference_steps: int | None = None,
    ) -> Schedule:
        """Return how ``budget`` network calls are spent on plans of ``calls``.

        Args:
            budget: network calls in all.
            calls: of a plan.
            pool: how many candidates there are.
            to_solution: whether noises need solutions.
            sets: whether samples are judged together, so that many are needed and rounds share no rows.
            variants: whether guidance and skips are searched after the candidates.
            reference_steps: of solutions and calibrations, where they are chosen.

        Raises:
            InputError: if the budget is too small for one candidate.
        """
        steps = steps_of_solutions(budget, calls, to_solution=to_solution, sets=sets, reference_steps=reference_steps)
        solution, least_noises = steps if to_solution else 0, LEAST_SET if sets else 1
        fit, verdict = FOR_CALIBRATION * budget, FOR_VERDICT * budget
        fit_steps = min(steps, max(4 * calls, LEAST_FIT_STEPS))
        one = _fit_cost(LEAST_FITTED, fit_steps, calls)
        if fit < one <= MOST_FOR_CALIBRATION * budget:
            fit, verdict = one, LESS_FOR_VERDICT * budget
        per_fresh = solution + round(calls * (2.0 + sum(RUNGS)))
        fresh = int(verdict // per_fresh)
        fresh = min(max(fresh, 2, least_noises), FRESH * (SETS if sets else 1))
        analytic = ANALYTIC[: min(int(fit // (1.5 * one)), len(ANALYTIC))] or ANALYTIC[: int(fit >= one)]
        each = fit / max(len(analytic), 1)
        fitted = LEAST_FITTED
        while fitted < FITTED and _fit_cost(fitted + 1, fit_steps, calls) <= each:
            fitted += 1
        final = each - _fit_cost(fitted, fit_steps, calls) >= FINAL_ROUNDS * calls * calls * fitted
        spent = fresh * per_fresh + (fit if analytic else 0)
        left = max(budget - spent, least_noises * (solution + 2 * calls))
        return cls(
            reference_steps=steps,
            rounds=_rounds(left, calls, solution, pool, sets, variants),
            analytic=analytic,
            fitted=fitted,
            fit_steps=fit_steps,
            fit_budget=fitted * fit_steps + TRIALS * calls * fitted,
            final=final,
            fresh=fresh,
        )


def _fit_cost(noises: int, steps: int, calls: int) -> float:
    """Return about how many network calls a calibration costs that fits rows alone: solutions, trials, rows, check."""
    return noises * (steps + (TRIALS + 4) * calls)


def _rounds(left: float, calls: int, solution: int, pool: int, sets: bool, variants: bool) -> tuple[Round, ...]:
    """Return the rounds that ``left`` network calls are enough for."""
    noises = NOISES * (SETS if sets else 1)
    extra = 2 * VARIANTS if variants else 0

    def cost(noises: int, candidates: int) -> float:
        rounds = _halved(noises, candidates)
        seen, total = 0, float(noises * (solution + 2 * calls + extra * calls))
        for one in rounds:
            new = one.noises if sets else one.noises - seen
            total += one.candidates * new * calls
            seen = one.noises
        return total

    least = LEAST_SET if sets else 1
    wanted = min(pool, 6 if sets else 24)
    while noises > least and cost(noises, wanted) > left:
        noises //= 2
    noises = max(noises, least)
    candidates = min(pool, 96)
    while candidates > 1 and cost(noises, candidates) > left:
        candidates -= 1
    return _halved(noises, candidates)


def _halved(noises: int, candidates: int) -> tuple[Round, ...]:
    found: list[Round] = []
    for parts, share in HALVINGS:
        one = Round(max(noises // parts, 1), max(1, round(candidates * share)))
        if found and found[-1].noises == one.noises:
            continue
        found.append(one)
    return tuple(found)


def ladder(calls: int, most: int) -> list[int]:
    """Return the numbers of calls at which the default is measured, rising, up to ``most``."""
    numbers = [max(calls + 1, round(calls * rung)) for rung in RUNGS]
    return [number for number in dict.fromkeys(numbers) if number <= most]

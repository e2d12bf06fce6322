"""Fits of SA-Solver's noise: τ of each step, then τ and rows together, to the moments of features."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from fewstep.calibration.fitting import Fitting
from fewstep.calibration.gauss_newton import Point, descend
from fewstep.calibration.moment_target import MomentTarget
from fewstep.calibration.rows import FittedRows
from fewstep.calibration.search import Tried
from fewstep.calibration.student import Student
from fewstep.calibration.tau_problem import TauProblem, TauTables, measured_units, noise_of
from fewstep.plan import Plan
from fewstep.solvers import SASolver
from fewstep.solvers.tau import Tau, as_tau, constant
from fewstep.time_grid import TimeGrid

__all__ = ["StochasticFit", "stochastic_fits"]

CONSTANTS = (0.0, 0.4, 0.7, 1.0)
"""τ that fits may start from, beside the solver's."""
ROUNDS = 2
"""Of fitting τ, and then of fitting τ and rows."""
TAU_DERIVED, ROWS_DERIVED = 128, 64
"""The most noises on which derivatives by τ alone, and by τ and rows, are taken."""
MEASURED = 32
"""The most noises on whose trajectories the units of rows are measured."""


@dataclass(frozen=True)
class StochasticFit:
    """A plan, and whether its rows were fitted or are SA-Solver's for its τ."""

    plan: Plan
    rows: bool


def stochastic_fits(
    fitting: Fitting, solver: SASolver, grid: TimeGrid, target: MomentTarget
) -> tuple[list[StochasticFit], list[Tried]]:
    """Return the plans after each round, the best start first, and the starts in the order of their distances."""
    problem = _of_tau(fitting, TauTables(solver, grid, fitting.history), target)
    points = sorted(_starts(problem, as_tau(solver.tau)), key=lambda start: start[1].error)
    found = [StochasticFit(points[0][1].detail.finished(), rows=False)]

    def better(point: Point) -> None:
        rows = len(point.theta) > len(points[0][1].theta)
        fitting.progressed("tau and rows" if rows else "tau", point.error**0.5)
        found.append(StochasticFit(point.detail.finished(), rows))

    best = descend(problem, points[0][1], ROUNDS, progress=better)
    widths = tuple(1 + min(n + 1, fitting.history) for n in range(grid.steps))
    together = torch.cat([best.theta, torch.zeros(sum(widths), dtype=torch.float64)])
    problem = replace(problem, widths=widths, most_derived=ROWS_DERIVED)
    descend(problem, replace(best, theta=together), ROUNDS, progress=better)
    return found, [(name, point.error) for name, point in points]


def _of_tau(fitting: Fitting, taus: TauTables, target: MomentTarget) -> TauProblem:
    """Return the problem of τ alone, with the units that its rows have at the solver's own τ."""
    table = taus.at(taus.squares(as_tau(taus.solver.tau)))
    assert table is not None
    some = fitting.which[:: max(1, len(fitting.which) // MEASURED)][:MEASURED]
    x_T = fitting.reference.state(float(taus.grid.times[0]), some)
    student = Student(some, x_T, noise=noise_of(table.plan, x_T, [fitting.seeds[i] for i in some.tolist()]))
    units = measured_units(table, fitting.network, student, fitting.history)
    return TauProblem(
        rows=FittedRows(table, (), (), units, x_T),
        tables=fitting.candidates([0])[0],
        network=fitting.network,
        reference=fitting.reference,
        which=fitting.which,
        widths=(0,) * taus.grid.steps,
        compared=fitting.compared,
        target=target,
        most_derived=TAU_DERIVED,
        taus=taus,
        seeds=fitting.seeds,
    )


def _starts(problem: TauProblem, given: Tau) -> list[tuple[str, Point]]:
    """Return the given τ and constant ones with their points."""
    taus = {"given": given, **{f"tau={value}": constant(value) for value in CONSTANTS}}
    points = {name: problem.at(tau) for name, tau in taus.items()}
    return [(name, point) for name, point in points.items() if point is not None]

"""Rows fitted one after the other, each on the trajectory that the rows before it make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.calibration.features import Units, feature_matrix
from fewstep.calibration.least_squares import Loss, NormalEquations, Ridge, choose_ridge, weights
from fewstep.calibration.network import CountedNetwork
from fewstep.calibration.reference import Reference
from fewstep.calibration.student import Student, Table
from fewstep.recipe import RowFit

__all__ = ["RIDGES", "FittedRows", "Resume", "fit_rows"]

RIDGES = (1e-12, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
"""Tried in cross-validation; features have a mean square of 1."""


@dataclass(frozen=True)
class FittedRows:
    """The fitted table, the fits, the students and units as each row saw them, and the final states [n, …]."""

    table: Table
    fits: tuple[RowFit, ...]
    students: tuple[Student, ...]
    units: tuple[Units, ...]
    end: Tensor


@dataclass(frozen=True)
class Resume:
    """Where to go on: a run whose rows before ``row`` stay as they are."""

    before: FittedRows
    row: int


def fit_rows(
    start: Table,
    network: CountedNetwork,
    reference: Reference,
    which: Tensor,
    *,
    history: int,
    ridge: float | None = None,
    loss: Loss = "square",
    resume: Resume | None = None,
) -> FittedRows:
    r"""Fit each row's coefficients so that the next state is the reference's at that time.

    Row n minimises the mean of \|a·x + Σ_j b_j·H_j − x_ref(t_{n+1})\|² over the noises and values, around the
    solver's own (a, b), for the student's state x and predictions H; later rows so mend what earlier ones left.

    Args:
        start: the rows to fit around, and the formulas of the first predictions.
        network: the model.
        reference: the solution of every noise.
        which: the noises to fit on.
        history: predictions whose coefficients are fitted; older ones keep the solver's.
        ridge: a fixed ridge for all features, or None: ridge and number of features chosen by cross-validation.
        loss: how the errors of noises are summed.
        resume: a run to go on from; its table must agree with ``start`` in the rows before.
    """
    table, plan = start, start.plan
    student = Student(which, reference.state(float(plan.times[0]), which))
    students, fits, units = [], [], []
    first = 0
    if resume is not None:
        first = resume.row
        for n in range(first):
            table = table.changed(n, resume.before.table.row(n))
        students, fits = list(resume.before.students[:first]), list(resume.before.fits[:first])
        units = list(resume.before.units[:first])
        student = resume.before.students[first]
    for n in range(first, plan.steps):
        if n > first or resume is None:
            student = student.evaluated(network, table, n)
        students.append(student)
        target = reference.state(float(plan.times[n + 1]), which)
        row, fit, unit = _fit_row(table, n, student, target, history, ridge, loss)
        table = table.changed(n, row)
        fits.append(fit)
        units.append(unit)
        student = student.advanced(row)
    return FittedRows(table, tuple(fits), tuple(students), tuple(units), student.state)


def _fit_row(
    table: Table, n: int, student: Student, target: Tensor, history: int, ridge: float | None, loss: Loss
) -> tuple[Tensor, RowFit, Units]:
    """Return the row, its fit, and the units of its features."""
    base, plan = table.row(n), table.plan
    count = 1 + min(n + 1, history)
    matrix = feature_matrix(plan.process, plan.times[n], plan.prediction, count - 1)
    sizes = torch.zeros(count, dtype=torch.float64)

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for i in range(len(student.which)):
            vectors = student.flat(i, len(base))
            sizes.add_(vectors[:count].square().mean(1) / len(student.which))
            yield matrix @ vectors[:count], target[i].reshape(-1).double() - base @ vectors

    raw = NormalEquations.of(pairs())
    units = Units.of(matrix, raw.gram.mean(0), sizes, student.state.dtype)
    scale = units.scale
    equations = NormalEquations(raw.gram / (scale[:, None] * scale) + units.penalty, raw.moment / scale, raw.energy)
    before = float(equations.energy.mean())
    if loss != "square":  # One round of reweighting, by what a fit without weights leaves.
        first = equations.solve(1e-6 if ridge is None else ridge)
        equations = equations.weighted(weights(equations.error(first), loss))
    if ridge is None:
        choice = choose_ridge(equations, RIDGES, list(range(2, count + 1)))
    else:
        choice = Ridge(ridge, count, before)
    fit = RowFit(choice.width, choice.ridge, before**0.5, choice.error**0.5)
    if choice.width == 0:
        return base, fit, units
    delta = torch.zeros(count, dtype=torch.float64)
    delta[: choice.width] = equations.part(torch.arange(len(student.which)), choice.width).solve(choice.ridge)
    row = base.clone()
    row[:count] += matrix.T @ (delta / scale)
    return row, fit, units

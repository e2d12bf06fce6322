"""All rows at once, and the times if wanted, fitted to the final samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from fewstep.calibration.features import feature_matrix
from fewstep.calibration.formulas import BLOCK, MOST_SEEN, PAST, FittedFormula, Form
from fewstep.calibration.gauss_newton import LEAST_GAIN, Point
from fewstep.calibration.interior_times import InteriorTimes
from fewstep.calibration.least_squares import Loss, NormalEquations, total, weights
from fewstep.calibration.network import CountedNetwork
from fewstep.calibration.reference import Reference
from fewstep.calibration.rows import FittedRows
from fewstep.calibration.scratch import scratch
from fewstep.calibration.student import BaseTables, Student, Table

__all__ = ["FinalProblem"]

ROW_DIFFERENCE, TIME_DIFFERENCE = 0.01, 0.12
"""Steps of the difference quotients: of the state's size, and in λ."""


@dataclass(frozen=True)
class FinalProblem:
    r"""Final error over the rows' coefficients and, with ``placement``, λ of the interior times.

    θ holds λ of the interior times (if free), then for each row the deviations of its fitted coefficients from the
    solver's own, in units in which 1 changes the next state by a root mean square of 1. A quotient for row n re-runs
    rows n + 1 and later; all that need the network at one time share its calls.

    Args:
        rows: the rows fitted one by one: where to start.
        tables: makes the rows that fits start from, when times move too.
        network, reference, which: as in ``fit_rows``.
        widths: the features of each row that are free.
        placement: where times may go; None keeps them.
        compared: what is compared of final samples, [n, …] → [n, …].
        derived: the noises that derivatives are taken on, the costly part; None for all of ``which``. Whether a step
            is better is always asked of all.
        loss: how the errors of noises are summed.
        last: the form of a formula that makes the final sample from the last row's state, fitted at every point anew
            (variable projection; derivatives take it as it is, Kaufman 1975); None for none.
    """

    rows: FittedRows
    tables: BaseTables
    network: CountedNetwork
    reference: Reference
    which: Tensor
    widths: tuple[int, ...]
    placement: InteriorTimes | None = None
    compared: Callable[[Tensor], Tensor] = torch.detach
    derived: Tensor | None = None
    loss: Loss = "square"
    max_step: float = 0.5
    last: Form | None = None

    def start(self) -> Point:
        """Return the point of the rows as they are."""
        base = self.tables.on(self.rows.table.plan.grid)
        parts = [] if self.placement is None else [self.placement.read(base.plan.grid)]
        for n, width in enumerate(self.widths):
            matrix, scale = self._matrix(base, n), self.rows.units[n].scale[:width]
            change = (self.rows.table.row(n) - base.row(n))[:width]
            parts.append(scale * torch.linalg.solve(matrix.T, change))
        theta = torch.cat(parts)
        point = self.evaluate(theta)
        assert point is not None
        return point

    def evaluate(self, theta: Tensor) -> Point | None:
        """Return the point at θ, None if its times cannot be a grid."""
        table = self._table(theta)
        if table is None:
            return None
        if self.last is None:
            return self._point(theta, table, self._all_ends(table))
        return self._ended(self.last, theta, table, self._kept_ends(table))

    @property
    def most_past(self) -> int:
        """The most predictions that a formula after the last row takes: those made in all, or what has room."""
        channels = next(iter(self.reference.end.shape[1:]), 1)
        return max(0, min(self.rows.table.plan.steps, MOST_SEEN // channels - 1))

    def with_last(self, point: Point, forms: Sequence[Form]) -> tuple[FinalProblem, Point] | None:
        """Return the problem with a formula after the last row and its point, for the form that errs least there.

        None if none errs less than ``point`` by what is worth a round. The network is called once for all forms.
        """
        table = replace(point.detail, past=self.most_past if PAST in forms else 0)
        seen = self._kept_ends(table)
        states = seen.chunk(1 + table.past, 1)[0] if table.past else seen
        points = [
            self._ended(form, point.theta, table, seen)
            if form == PAST
            else self._ended(form, point.theta, replace(table, past=0), states)
            for form in forms
        ]
        form, best = min(zip(forms, points, strict=True), key=lambda entry: entry[1].error)
        return (replace(self, last=form), best) if best.error < (1.0 - LEAST_GAIN) * point.error else None

    def _ended(self, form: Form, theta: Tensor, table: Table, ends: Tensor) -> Point:
        """Return the point with a formula fitted to what it takes after the last row."""
        places = torch.arange(len(self.which)).split(BLOCK)
        pieces = ((self.which[place], ends[place], self.reference.end[self.which[place]]) for place in places)
        last = FittedFormula.of(form, pieces, self.which, len(self.reference.end), None)
        return self._point(theta, replace(table, last=last), ends.split(self.network.batch_size))

    def _point(self, theta: Tensor, table: Table, ends: Iterable[Tensor]) -> Point:
        """Return the point whose last row makes the states ``ends``, or what a formula takes, in blocks of a call."""
        found = []
        for part, end in zip(self.network.blocks(self.which), ends, strict=True):
            found += [float(r @ r) / len(r) for r in self._residuals(self._finished(table, end, part), part)]
        error = total(torch.tensor(found, dtype=torch.float64), self.loss)
        return Point(theta, error + float(theta @ self._penalty @ theta), table)

    def linearise(self, point: Point) -> NormalEquations:
        """Return the normal equations over θ, by difference quotients."""
        equations, pull = NormalEquations.of(self._quotients(point)), self._penalty @ point.theta
        equations = equations.weighted(weights(equations.energy, self.loss))
        return NormalEquations(
            equations.gram + self._penalty, equations.moment - pull, equations.energy + point.theta @ pull
        )

    def _quotients(self, point: Point) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ∂output/∂θ [len(θ), values] and the residual [values] of each noise of ``derived``."""
        tables, steps, starts = self._perturbed(point.theta)
        sizes = torch.tensor(steps, dtype=torch.float64)[:, None]
        for part in self.network.blocks(self.which if self.derived is None else self.derived):
            runs = self._ends(point.detail, tables, starts, part)
            ends = [self._finished(point.detail, run.seen(point.detail.past), part) for run in runs]
            made = [self.compared(end) for end in ends]
            for i, residual in enumerate(self._residuals(ends[0], part)):
                moved = torch.stack([m[i].reshape(-1) for m in made[1:]]).double()
                yield (moved - made[0][i].reshape(-1).double()) / sizes, residual

    @cached_property
    def _penalty(self) -> Tensor:
        """The rows' own penalties on the diagonal, none on the parameters before."""
        leading = len(self._leading)
        blocks = [u.penalty[:width, :width] for u, width in zip(self.rows.units, self.widths, strict=True)]
        return torch.block_diag(torch.zeros(leading, leading, dtype=torch.float64), *blocks)

    def _all_ends(self, table: Table) -> Iterator[Tensor]:
        """Yield the states that the last row makes, or what a formula takes, of all noises in blocks."""
        return (self._run(table, part) for part in self.network.blocks(self.which))

    def _kept_ends(self, table: Table) -> Tensor:
        """Return the states that the last row makes, and the channels of what else a formula takes, [len(which), …]."""
        sample = self.reference.end.shape[1:]
        seen = (*(channels * (1 + table.past) for channels in sample[:1]), *sample[1:])
        kept = scratch((len(self.which), *seen), self.reference.end.dtype)
        places = torch.arange(len(self.which)).split(self.network.batch_size)
        for place, end in zip(places, self._all_ends(table), strict=True):
            kept[place] = end
        return kept

    def _run(self, table: Table, part: Tensor) -> Tensor:
        return self._student(table, part).run(self.network, table).seen(table.past)

    def _student(self, table: Table, part: Tensor) -> Student:
        return Student(part, self.reference.state(float(table.plan.times[0]), part))

    def _finished(self, table: Table, end: Tensor, part: Tensor) -> Tensor:
        return end if table.last is None else table.last(end, part)

    def _residuals(self, end: Tensor, part: Tensor) -> list[Tensor]:
        gap = self.compared(self.reference.end[part]).double() - self.compared(end).double()
        return [g.reshape(-1) for g in gap]

    def _perturbed(self, theta: Tensor) -> tuple[list[Table], list[float], list[int]]:
        """Return for each parameter a table with it changed, by how much, and the first row that differs."""
        leading = len(self._leading)
        starts = [*self._leading, *(n for n, width in enumerate(self.widths) for _ in range(width))]
        tables, steps = [], []
        for p in range(len(theta)):
            size = self._difference if p < leading else ROW_DIFFERENCE
            for step in (size, -size, size / 8, -size / 8):
                other = theta.clone()
                other[p] += step
                table = self._table(other)
                if table is not None:
                    break
            if table is None:  # no room on either side: the time stays
                table = self._table(theta)
            assert table is not None
            tables.append(table)
            steps.append(step)
        return tables, steps, starts

    def _ends(self, table: Table, tables: list[Table], starts: list[int], part: Tensor) -> list[Student]:
        """Return the table itself and every changed one after the last row; those not yet changed share its run."""
        plan = table.plan
        runs = [self._student(table, part)]
        members = [table]
        which: list[int] = []
        for n in range(plan.steps):
            runs = self._called(runs, members, n)
            for p in (p for p, start in enumerate(starts) if start == n):
                which.append(p)
                members.append(tables[p])
                runs.append(runs[0])
            runs = [run.stepped(member, n) for run, member in zip(runs, members, strict=True)]
        order = sorted(range(len(which)), key=which.__getitem__)
        return [runs[0], *(runs[1 + k] for k in order)]

    def _called(self, runs: list[Student], members: list[Table], n: int) -> list[Student]:
        """Return the runs with the predictions before row n; one network call for all that share its time."""
        if n < len(members[0].formulas):
            return [run.evaluated(self.network, member, n) for run, member in zip(runs, members, strict=True)]
        made = list(runs)
        by_time: dict[float, list[int]] = {}
        for k, member in enumerate(members):
            by_time.setdefault(float(member.plan.times[n]), []).append(k)
        for group in by_time.values():
            merged = Student(torch.cat([runs[k].which for k in group]), torch.cat([runs[k].state for k in group]))
            called = merged.evaluated(self.network, members[group[0]], n).history[0]
            for k, new in zip(group, called.split(len(runs[0].which)), strict=True):
                made[k] = replace(runs[k], history=(new, *runs[k].history)[: members[k].kept])
        return made

    def _table(self, theta: Tensor) -> Table | None:
        used = len(self._leading)
        table = self._base(theta[:used])
        if table is None:
            return None
        for n, width in enumerate(self.widths):
            row = table.row(n)
            row[:width] += self._matrix(table, n).T @ (theta[used : used + width] / self.rows.units[n].scale[:width])
            table = table.changed(n, row)
            used += width
        return replace(table, past=self.most_past if self.last == PAST else 0)

    @property
    def _leading(self) -> Sequence[int]:
        """For each parameter before those of the rows the first row that it changes."""
        return range(0 if self.placement is None else self.rows.table.plan.steps - 1)

    @property
    def _difference(self) -> float:
        """The step of the difference quotients of these."""
        return TIME_DIFFERENCE

    def _base(self, leading: Tensor) -> Table | None:
        """Return the table that the rows' parameters are deviations from, None if there is none."""
        grid = self.rows.table.plan.grid if self.placement is None else self.placement.grid(leading)
        return None if grid is None else self.tables.on(grid)

    def _matrix(self, table: Table, n: int) -> Tensor:
        plan, width = table.plan, self.widths[n]
        return feature_matrix(plan.process, plan.times[n], plan.prediction, max(width - 1, 1))[:width, :width]

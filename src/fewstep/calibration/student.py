"""The student: the state and past predictions of many noises on a plan that is being fitted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewstep.calibration.base_plan import base_plan
from fewstep.calibration.formulas import FittedFormula, Formulas
from fewstep.calibration.network import CountedNetwork
from fewstep.calibration.scratch import scratch
from fewstep.executor import folded, with_last_formula
from fewstep.plan import Plan
from fewstep.solvers import Solver
from fewstep.time_grid import TimeGrid

__all__ = ["BaseTables", "Student", "Table"]


@dataclass(frozen=True)
class Table:
    """The coefficients of a plan of one row a prediction, filled row by row: state_weight [N], history_weights [N, K].

    ``formulas`` predict in place of the network before the first rows; ``last`` makes the final state from that of the
    last row and from ``past`` predictions, the newest.
    """

    plan: Plan
    state_weight: Tensor
    history_weights: Tensor
    formulas: tuple[FittedFormula, ...] = ()
    last: FittedFormula | None = None
    past: int = 0

    @property
    def kept(self) -> int:
        """The number of predictions that are kept for rows and formulas to come."""
        return max(self.history_weights.shape[1], self.past)

    @classmethod
    def of(cls, plan: Plan, history: int, formulas: tuple[FittedFormula, ...] = ()) -> Table:
        """Return those of a folded plan, as wide as its rows and the history to be fitted."""
        width = max(plan.history_weights.shape[1], min(history, plan.steps))
        return cls(
            plan,
            plan.state_weight.clone(),
            torch.nn.functional.pad(plan.history_weights, (0, width - plan.history_weights.shape[1])),
            formulas,
        )

    def row(self, n: int) -> Tensor:
        """Return (state, data…) of row n: what multiplies (base, newest prediction, …), [1 + min(n + 1, K)]."""
        return torch.cat([self.state_weight[n, None], self.history_weights[n, : n + 1]])

    def changed(self, n: int, row: Tensor) -> Table:
        """Return the table with another row n; this one stays as it is."""
        state, history = self.state_weight.clone(), self.history_weights.clone()
        state[n], history[n, : len(row) - 1] = row[0], row[1:]
        return replace(self, state_weight=state, history_weights=history)

    def finished(self) -> Plan:
        """Return the plan."""
        count = len(self.formulas)
        analytic = (*(formula.whole for formula in self.formulas), *(None,) * (self.plan.steps - count))
        plan = replace(
            self.plan,
            state_weight=self.state_weight,
            history_weights=self.history_weights,
            fitted=True,
            evaluate=torch.arange(self.plan.steps) >= count,
            analytic=analytic if count else (),
        )
        return plan if self.last is None else with_last_formula(plan, self.last.whole)


@dataclass(frozen=True)
class BaseTables:
    """What fits start from on any grid: the solver's rows, and the formulas of the first predictions.

    Attributes:
        solver: makes the rows.
        history: predictions whose coefficients are fitted in a row.
        formulas: the first predictions that are formulas; None for none.
    """

    solver: Solver
    history: int
    formulas: Formulas | None = None

    @property
    def count(self) -> int:
        """The number of predictions by formulas."""
        return 0 if self.formulas is None else self.formulas.count

    @property
    def label(self) -> str:
        """What they are, for people; empty for none."""
        return "" if self.formulas is None else f"{self.count} analytic ({self.formulas.form})"

    def on(self, grid: TimeGrid) -> Table:
        """Return the table on ``grid``."""
        made: tuple[FittedFormula, ...] = ()
        if self.formulas is not None:
            made = tuple(self.formulas.at(float(t)) for t in grid.times[: self.formulas.count])
        return Table.of(folded(base_plan(self.solver, grid)), self.history, made)


@dataclass(frozen=True)
class Student:
    """States [n, …] of the noises ``which``, and their predictions, newest first; a step makes a new one.

    ``noise`` is what each row adds if it adds noise.
    """

    which: Tensor
    state: Tensor
    history: tuple[Tensor, ...] = ()
    noise: tuple[Tensor | None, ...] = ()

    def evaluated(self, network: CountedNetwork, table: Table, n: int) -> Student:
        """Return the student with the prediction before row ``n`` in front of its history."""
        plan, t = table.plan, table.plan.times[n]
        if n < len(table.formulas):
            made = table.formulas[n](self.state, self.which)
        else:
            made = network(self.state, t, self.which)
        if plan.prediction == "epsilon":
            alpha, sigma = float(plan.process.alpha(t)), float(plan.process.sigma(t))
            made = (self.state - alpha * made) / sigma
        return replace(self, history=(made, *self.history)[: table.kept])

    def advanced(self, row: Tensor) -> Student:
        """Return the student at the state that ``row`` makes."""
        return replace(self, state=_combined(row, self.vectors(len(row))))

    def stepped(self, table: Table, n: int) -> Student:
        """Return the student at the state that row ``n`` makes, noise included."""
        made, noise = self.advanced(table.row(n)), self.noise[n] if self.noise else None
        if noise is not None:
            made.state.add_(noise, alpha=float(table.plan.noise_scale[n]))
        return made

    def run(self, network: CountedNetwork, table: Table) -> Student:
        """Return the student at the end of the table's plan."""
        student = self
        for n in range(table.plan.steps):
            student = student.evaluated(network, table, n).stepped(table, n)
        return student

    def seen(self, past: int) -> Tensor:
        """Return the state and the ``past`` newest predictions, their channels side by side."""
        if not past:
            return self.state
        parts = (self.state, *self.history[:past])
        shape = (len(self.state), sum(part.shape[1] for part in parts), *self.state.shape[2:])
        return torch.cat(parts, 1, out=scratch(shape, self.state.dtype))

    def vectors(self, count: int) -> list[Tensor]:
        """Return the base and the newest predictions, ``count`` of them."""
        return [self.state, *self.history[: count - 1]]

    def flat(self, i: int, count: int) -> Tensor:
        """Return noise i's vectors as float64 [count, values]."""
        return torch.stack([v[i].reshape(-1) for v in self.vectors(count)]).double()


def _combined(row: Tensor, vectors: list[Tensor]) -> Tensor:
    made = torch.mul(vectors[0], float(row[0]), out=scratch(tuple(vectors[0].shape), vectors[0].dtype))
    for weight, vector in zip(row[1:].tolist(), vectors[1:], strict=True):
        if weight != 0.0:
            made = made.add_(vector, alpha=weight)
    return made

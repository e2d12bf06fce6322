"""Multistep predictor-correctors: the schedule of their rows, and the class that fills it in."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from fewstep.errors import InputError
from fewstep.plan import Plan, Prediction
from fewstep.solvers.adams import Coefficients, Intervals
from fewstep.solvers.base import Solver
from fewstep.solvers.tau import Tau, constant
from fewstep.time_grid import TimeGrid

__all__ = ["Mode", "MultistepSolver", "Schedule"]

Mode = Literal["PEC", "PECE"]
CANCELLED = 50.0
"""The largest ratio Σ|w|/|Σ w| that the weights w of a row over several predictions may have.

UniPC-3 on three even times of an EDM process, which is published so, has 27; other heuristic grids have at most 15."""


@dataclass(frozen=True)
class Schedule:
    """The order of a multistep method's rows, and the predictions that they use.

    Args:
        order: the number of past evaluations that the predictor looks at.
        corrector_nodes: for a predictor of order p, the number of nodes (the new evaluation included) of
            the corrector at the same step; None for no corrector.
        lower_order_final: whether the order falls at the end, 3, 2, 1.
        mode: "PEC" re-uses the predictor's evaluation, "PECE" evaluates again after the correction.
        corrects_last: whether the last finite interval is corrected too (one more call), and a last interval
            to the noise-free end starts from a fresh evaluation (another one).
        prediction: what the history holds, "x0" or "epsilon".
        tau: the noise; it is 0 in an interval to the noise-free end.
    """

    order: int
    corrector_nodes: Callable[[int], int] | None = None
    lower_order_final: bool = True
    mode: Mode = "PEC"
    corrects_last: bool = False
    prediction: Prediction = "x0"
    tau: Tau = constant(0.0)

    def predictor_order(self, n: int, grid: TimeGrid) -> int:
        """Return the order of the predictor in interval n of the grid."""
        if grid.ends_at_zero and n == grid.steps - 1:
            return 1
        order = min(self.order, self.usable(n, grid))
        return min(order, self.left(n, grid)) if self.lower_order_final else order

    def left(self, n: int, grid: TimeGrid) -> int:
        """Return how many intervals are left, this one included, over which a falling order reaches 1."""
        return grid.steps - n

    def usable(self, n: int, grid: TimeGrid) -> int:
        """Return the number of past evaluations with a finite λ; 1 for a first step from pure noise."""
        return max(1, n + 1 - int(grid.starts_at_pure_noise))

    def corrector_order(self, n: int, grid: TimeGrid) -> int:
        """Return the number of nodes of the corrector in interval n, 0 where it is not corrected."""
        finite = grid.steps - int(grid.ends_at_zero)
        if self.corrector_nodes is None or n >= finite or (n == 0 and grid.starts_at_pure_noise):
            return 0
        if n == grid.steps - 1 and not self.corrects_last:
            return 0
        nodes = min(self.corrector_nodes(self.predictor_order(n, grid)), self.usable(n, grid) + 1)
        return min(nodes, self.left(n, grid) + 1) if self.lower_order_final else nodes


class MultistepSolver(Solver):
    r"""A linear multistep method, with a corrector or without: a subclass gives a schedule and coefficients.

    ``table`` lists the rows that the schedule asks for, with orders that rise at the start and fall at the end, and
    calls ``predict`` and ``correct`` once for all rows of one order. What these may rely on, besides what ``Solver``
    promises:

    1. ``intervals`` holds S intervals of the grid, ``intervals.n`` [S]; a coefficient is [..., S], and a row of p nodes
       has ``history_weights`` [..., S, p] in the order of its nodes.
    2. A predictor's nodes are the grid points n, n − 1, …, offsets 0, −1, … from the interval's start: the newest
       prediction first. A corrector's are n + 1, n, n − 1, …, offsets 1, 0, −1, …: the new prediction first.
    3. ``intervals.positions(offsets)`` is where they lie: u = (λ_{n + offset} − λ_{n+1})/h, in units of the step h and
       counted from its end, so that the start is at −1, the end at 0, and the past below −1.
    4. A rule of order 2 and more, and a corrector, never sees h = ∞, nor a node where λ is infinite. Order 1 does, in
       an interval to the noise-free end (h = ∞, σ_end = 0, α_end = 1, τ = 0) and in one from pure noise (h = ∞, α = 0):
       its row must be the limit, as x_end = D and x_end = (σ_end/σ)·x + α_end·D are.
    5. A row whose coefficients cancel is replaced by the one of the next lower order.
    """

    @abstractmethod
    def schedule(self, grid: TimeGrid) -> Schedule:
        """Return the schedule of the rows on ``grid``."""

    @abstractmethod
    def predict(self, intervals: Intervals, order: int) -> Coefficients:
        """Return the predictor rows that look at ``order`` past predictions."""

    def correct(self, intervals: Intervals, nodes: int) -> Coefficients:
        """Return the corrector rows that look at the new prediction and ``nodes − 1`` past ones."""
        raise NotImplementedError(f"{type(self).__name__} has a schedule with a corrector: it needs correct().")

    def table(self, grid: TimeGrid) -> Plan:
        """Return the rows that the schedule asks for."""
        schedule = self.schedule(grid)
        if schedule.prediction == "epsilon" and grid.starts_at_pure_noise:
            raise InputError(
                f"the grid starts at t = {float(grid.times.max()):g}, where α = 0 and a noise prediction says "
                "nothing of the data: start a little later, or use a solver of data predictions."
            )
        entries = _entries(grid, schedule)
        tau = schedule.tau.at(grid)
        if grid.ends_at_zero:
            tau[..., -1] = 0.0
        batch, rows = grid.times.shape[:-1], len(entries)
        state, noise = (torch.zeros(*batch, rows, dtype=torch.float64) for _ in range(2))
        history = torch.zeros(*batch, rows, 1 + max(max(e.slots) for e in entries), dtype=torch.float64)
        groups: dict[tuple[bool, int], list[int]] = defaultdict(list)
        for row, entry in enumerate(entries):
            groups[entry.corrects, entry.order].append(row)
        for (corrects, order), members in groups.items():
            where = torch.tensor(members)
            n = torch.tensor([entries[i].n for i in members])
            made = self._steady(Intervals(grid, n, tau[..., n]), order, corrects)
            state[..., where], noise[..., where] = made.state_weight, made.noise_scale
            history[..., where[:, None], torch.tensor([entries[i].slots for i in members])] = made.history_weights
        return Plan(
            grid=grid,
            interval=torch.tensor([e.n for e in entries]),
            state_weight=state,
            history_weights=history,
            noise_scale=noise,
            evaluate=torch.tensor([e.evaluate for e in entries]),
            prediction=schedule.prediction,
            solver=repr(self),
        )

    def _steady(self, intervals: Intervals, order: int, corrects: bool) -> Coefficients:
        """Return the rows of one order; those whose coefficients cancel are of the next lower one, and so on.

        Where a step is long beside the distance of the times before it, a polynomial through these says nothing of its
        end: the weights of the predictions are large and of both signs, and errors of the network grow by as much.
        """
        made = (self.correct if corrects else self.predict)(intervals, order)
        size, total = made.history_weights.abs().sum(-1), made.history_weights.sum(-1).abs()
        cancel = size > CANCELLED * total
        if order == 1 + int(corrects) or not bool(cancel.any()):  # Without the past nothing lies close together.
            return made
        lower = self._steady(intervals, order - 1, corrects)
        spare = torch.zeros_like(made.history_weights[..., :1])
        weights = torch.cat([lower.history_weights, spare], dim=-1)
        return Coefficients(
            torch.where(cancel, lower.state_weight, made.state_weight),
            torch.where(cancel[..., None], weights, made.history_weights),
            torch.where(cancel, lower.noise_scale, made.noise_scale),
        )


@dataclass(frozen=True)
class _Entry:
    """A row to be: its interval, order, whether it calls the network, and the calls it looks at."""

    n: int
    corrects: bool
    order: int
    evaluate: bool
    slots: tuple[int, ...]


def _entries(grid: TimeGrid, schedule: Schedule) -> list[_Entry]:
    """List the rows; ``newest[n]`` is the number of the latest call made at grid point n."""
    entries: list[_Entry] = []
    newest: dict[int, int] = {}
    calls = 0
    stale = True
    for n in range(grid.steps):
        to_zero = grid.ends_at_zero and n == grid.steps - 1
        fresh = stale or (to_zero and schedule.corrects_last and n > 0 and entries[-1].corrects)
        if fresh:
            newest[n], calls = calls, calls + 1
        order = schedule.predictor_order(n, grid)
        entries.append(_Entry(n, False, order, fresh, tuple(calls - 1 - newest[n - j] for j in range(order))))
        nodes = schedule.corrector_order(n, grid)
        if nodes:
            newest[n + 1], calls = calls, calls + 1
            entries.append(_Entry(n, True, nodes, True, tuple(calls - 1 - newest[n + 1 - j] for j in range(nodes))))
        stale = not nodes or schedule.mode == "PECE"
    return entries

"""DEIS: exponential integrator over noise predictions, polynomial in λ."""

from __future__ import annotations

from dataclasses import dataclass

from fewstep.plan import Plan
from fewstep.processes.base import on_host
from fewstep.solvers.adams import Coefficients, Intervals, adams
from fewstep.solvers.base import Solver, check_order
from fewstep.solvers.multistep import Multistep, multistep
from fewstep.time_grid import TimeGrid

__all__ = ["DEIS"]


@dataclass(frozen=True)
class DEIS(Solver):
    r"""DEIS, multistep over noise predictions: orders 1 to 3, one call a step.

        x_end = (α_end/α)·x − α_end·∫ e^{−λ}·ε̂(λ) dλ, ε̂ a polynomial in λ through past noise predictions.

    Equals ``SASolver(order, 0, tau=0, prediction="epsilon")``; order 1 is ``Euler()``;
    diffusers' DEISMultistepScheduler ("logrho") on the same sigmas, which from 15 steps on takes no lower order at
    the end: there it is ``lower_order_final=False``.

    Source: Zhang & Chen, DEIS (arXiv 2204.13902), with the polynomial in log ρ = −λ.

    Args:
        order: 1 to 3.
        lower_order_final: whether the order falls at the end, 3, 2, 1.

    Raises:
        InputError: for another order.
    """

    order: int = 3
    lower_order_final: bool = True

    def __post_init__(self) -> None:
        """Check the settings."""
        check_order("order", self.order, 1, 3)

    @on_host
    def plan(self, grid: TimeGrid) -> Plan:
        """Return the table: one row an interval, over a history of noise predictions."""
        schedule = Multistep(order=self.order, lower_order_final=self.lower_order_final)
        return multistep(grid, schedule, self._rule, prediction="epsilon", solver=repr(self))

    def _rule(self, intervals: Intervals, order: int) -> Coefficients:
        return adams(intervals, range(0, -order, -1), "epsilon")

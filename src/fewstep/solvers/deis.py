"""DEIS: exponential integrator over noise predictions, polynomial in λ."""

from __future__ import annotations

from dataclasses import dataclass

from fewstep.solvers.adams import Coefficients, Intervals, adams
from fewstep.solvers.base import check_order
from fewstep.solvers.multistep import MultistepSolver, Schedule
from fewstep.time_grid import TimeGrid

__all__ = ["DEIS"]


@dataclass(frozen=True)
class DEIS(MultistepSolver):
    r"""DEIS, multistep over noise predictions: orders 1 to 3, one call a step.

    With h = λ_{n+1} − λ_n and ε̂_n the prediction at grid point n,

        x_{n+1} = (α_{n+1}/α_n)·x_n − σ_n·(α_{n+1}/α_n)·Σ_{j<p} w_j·ε̂_{n−j},
        w_j = ∫_0^h e^{−s}·ℓ_j(λ_n + s) ds,

    where ℓ_j are the Lagrange polynomials through λ_n, …, λ_{n−p+1}: ε̂ is their polynomial, integrated exactly.
    p = 1 has w_0 = 1 − e^{−h}. The order p rises 1, 2, 3 at the start.

    Equals ``SASolver(order, 0, tau=0, prediction="epsilon", orders="diffusers")``; order 1 is ``Euler()``;
    diffusers' DEISMultistepScheduler ("logrho") on the same sigmas, which from 15 steps on takes no lower order at
    the end: there it is ``lower_order_final=False``.

    Source: Zhang & Chen, DEIS (arXiv 2204.13902), with the polynomial in log ρ = −λ.

    Args:
        order: 1 to 3.
        lower_order_final: whether the order falls at the end, 3, 2, 1.

    Raises:
        InputError: for another order.
    """

    name = "deis"
    order: int = 3
    lower_order_final: bool = True

    def __post_init__(self) -> None:
        """Check the settings."""
        check_order("order", self.order, 1, 3)

    def schedule(self, grid: TimeGrid) -> Schedule:
        """Return one row an interval, over a history of noise predictions."""
        return Schedule(order=self.order, lower_order_final=self.lower_order_final, prediction="epsilon")

    def predict(self, intervals: Intervals, order: int) -> Coefficients:
        """Return the exact rows over noise predictions."""
        return adams(intervals, range(0, -order, -1), "epsilon")

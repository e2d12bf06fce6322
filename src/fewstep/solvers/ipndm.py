"""iPNDM: Adams-Bashforth with the weights of equal steps, over noise predictions."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fewstep.solvers.adams import Coefficients, Intervals
from fewstep.solvers.base import check_order
from fewstep.solvers.multistep import MultistepSolver, Schedule
from fewstep.time_grid import TimeGrid

__all__ = ["IPNDM"]

WEIGHTS = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
"""Of Adams-Bashforth on equal steps, the newest prediction first."""


@dataclass(frozen=True)
class IPNDM(MultistepSolver):
    r"""iPNDM, multistep over noise predictions: orders 1 to 4, one call a step.

    In s = σ/α and x/α the solution has the slope ε̂, and with w the Adams-Bashforth weights of p equal steps

        x_{n+1} = (α_{n+1}/α_n)·x_n + α_{n+1}·(s_{n+1} − s_n)·Σ_{j<p} w_j·ε̂_{n−j}.

    The order p rises 1, 2, 3, 4 at the start. The weights are those of equal steps on any grid, as published: their
    errors are small where predictions change little from step to step, which is where few calls are made. The first
    step has order 1, so the method converges with order 2 at most, and for unequal steps whatever its weights.

    An interval to the noise-free end is of order 1, x_{n+1} = D. Equals: ``order=1`` is ``Euler()``.

    Source: Zhang & Chen, DEIS (arXiv 2204.13902), appendix H.2; Liu et al., PNDM (arXiv 2202.09778).

    Args:
        order: 1 to 4.

    Raises:
        InputError: for another order.
    """

    name = "ipndm"
    order: int = 4

    def __post_init__(self) -> None:
        """Check the settings."""
        check_order("order", self.order, 1, 4)

    def schedule(self, grid: TimeGrid) -> Schedule:
        """Return one row an interval, over a history of noise predictions; the order does not fall at the end."""
        return Schedule(order=self.order, lower_order_final=False, prediction="epsilon")

    def predict(self, intervals: Intervals, order: int) -> Coefficients:
        """Return the rows with the weights of equal steps."""
        ratio = intervals.alpha_end / intervals.grid.alpha[..., intervals.n]
        step = intervals.sigma_end - ratio * intervals.grid.sigma[..., intervals.n]
        weights = torch.tensor(WEIGHTS[order], dtype=torch.float64)
        return Coefficients(
            state_weight=ratio, history_weights=step[..., None] * weights, noise_scale=torch.zeros_like(ratio)
        )

"""SA-Solver: the stochastic Adams predictor-corrector for the variance-controlled SDE."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fewstep.errors import InputError, unknown_name
from fewstep.plan import Plan, Prediction
from fewstep.solvers.adams import Coefficients, Intervals, adams
from fewstep.solvers.base import check_order
from fewstep.solvers.multistep import Mode, MultistepSolver, Schedule
from fewstep.solvers.shortcuts import half_slope
from fewstep.solvers.tau import GridPoint, Tau, as_tau
from fewstep.spectra.gaussian import exact_std, response
from fewstep.time_grid import TimeGrid

__all__ = ["SASolver"]

VARIANCES = (0.01, 0.04, 0.25, 1.0, 4.0)
"""Variances of the Gaussian data on which a plan over noise predictions is tried."""
DOUBTFUL, UNSTABLE = 1.5, 10.0
"""Ratios of the samples' standard deviation to the data's that are warned of, and refused.

Over data predictions the ratio stays below 2.4 at every order, τ up to 1.5 and 5 steps or more."""


@dataclass(frozen=True)
class SASolver(MultistepSolver):
    r"""SA-Solver, the stochastic Adams predictor-corrector: noise by τ, orders 1 to 4.

    With h = λ_{n+1} − λ_n, D_n the prediction at grid point n, τ read at the interval's end and constant in it, and
    c = 1 + τ², both rows of an interval share the noise ξ:

        x_{n+1} = (σ_{n+1}/σ_n)·e^{−τ²h}·x_n + α_{n+1}·Σ_j b_j·D_{n−j} + σ_{n+1}·√(1 − e^{−2τ²h})·ξ,
        b_j = ∫_{−h}^0 c·e^{cs}·ℓ_j(λ_{n+1} + s) ds,

    with ℓ_j the Lagrange polynomials through the λ of the nodes: those of ``predictor_order`` past predictions,
    j = 0, 1, … (Adams-Bashforth), then those of the new one and ``corrector_order − 1`` past ones, j = −1, 0, 1, …
    (Adams-Moulton). The integrals are exact; one node has b_0 = 1 − e^{−ch}. The orders rise 1, 2, 3 at the start.

    The many-step form (``few_step=False``) corrects the last finite interval too, and an interval to the
    noise-free end starts from a fresh evaluation: N finite intervals and that denoising cost N + 2 calls, or N + 1
    without a corrector (the authors' code then calls the network twice on one state, and uses the second answer).
    The few-step form (appendix D) takes half a slope in two-node rows: with h_n = λ_n − λ_{n−1}, the predictor's sum is
    (1 − e^{−ch})·D_n + ½·ch·(h/h_n)·(D_n − D_{n−1}), the corrector's (1 − e^{−ch})·D_n + ½·ch·(D_{n+1} − D_n). Its last
    interval has τ = 0 and no corrector: N intervals cost N calls. "PECE" evaluates again after each correction.

    Equals: ``corrector_order=0, tau=0, orders="diffusers"`` is ``UniPC(order, "exact", corrector=False)``, and with
    ``prediction="epsilon"`` ``DEIS``; ``SASolver(1, 0, tau)`` is ``DDIM(eta)`` with its τ.

    Source: Xue et al., SA-Solver (arXiv 2309.05019), eq. 13-18, algorithm 1 and appendix D.

    Args:
        predictor_order: 1 to 4 past predictions. The authors take 3 and 4 nodes unguided, 2 and 2 under
            strong guidance.
        corrector_order: 0 (off) to 5 nodes, the new one included.
        tau: a number, one for each step, ``fs.tau.window``, a preset's name ("cifar10-edm", see ``fs.tau.preset``), or
            a function of the grid point.
        few_step: the form of appendix D.
        mode: "PEC" or "PECE".
        prediction: what is interpolated: "x0" (recommended) or "epsilon",
            x_{n+1} = (α_{n+1}/α_n)·x_n − c·α_{n+1}·∫ e^{−λ}·ε̂ dλ + τ·σ_{n+1}·√(e^{2h} − 1)·ξ.
            The latter does not damp the state as the former does, so that with τ > 0 it needs short steps h, the
            shorter the higher the orders: at τ = 1 order 1 about 10 steps, orders 2 and 2 about 40, 3 and 3 about 80.
        lower_order_final: whether the orders fall at the end, 3, 2, 1.
        orders: how they fall on a grid to the noise-free end. "paper", the authors' rule and that of the many-step form
            by default: the denoising is no step, and the finite intervals fall to predictor order 1 and 2 nodes.
            "diffusers", that of the few-step form by default: the denoising is the last step, so that the interval
            before it has order 2 and up to 3 nodes. "comfyui", ComfyUI's ``sa_solver``: predictors as in "paper",
            correctors of a node fewer and none in the last finite interval ("PECE": one node), N calls for N
            intervals, "PECE" one fewer than 2·N; no fall on grids that end before.

    Raises:
        InputError: for other orders, modes or predictions, or a τ that is negative or not finite. ``plan`` raises it
            for a grid on which "epsilon" with τ > 0 is unstable: samples of exact Gaussian data spread over ten times
            as far as the data. From 1.5 times on it warns.
    """

    name = "sa"
    predictor_order: int = 3
    corrector_order: int = 3
    tau: float | str | Tau | Sequence[float] | Callable[[GridPoint], float | Tensor] = 1.0
    few_step: bool = False
    mode: Mode = "PEC"
    prediction: Prediction = "x0"
    lower_order_final: bool = True
    orders: Literal["paper", "diffusers", "comfyui"] | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        check_order("predictor_order", self.predictor_order, 1, 4)
        check_order("corrector_order", self.corrector_order, 0, 5)
        if self.mode not in ("PEC", "PECE"):
            raise InputError(f"mode is {self.mode!r}: write 'PEC' or 'PECE'.")
        if self.prediction not in ("x0", "epsilon"):
            raise InputError(f"prediction is {self.prediction!r}: write 'x0' or 'epsilon'.")
        if self.few_step and self.prediction == "epsilon":
            raise InputError("the few-step form is defined for prediction='x0': set few_step=False for 'epsilon'.")
        if self.orders not in (*_SCHEDULES, None):
            raise unknown_name("rule of orders", self.orders, _SCHEDULES)
        as_tau(self.tau)
        if isinstance(self.tau, list):  # A solver has a hash.
            object.__setattr__(self, "tau", tuple(self.tau))

    def schedule(self, grid: TimeGrid) -> Schedule:
        """Return a predictor row and, where it is corrected, a corrector row an interval."""
        tau = as_tau(self.tau)
        return _SCHEDULES[self.orders or ("diffusers" if self.few_step else "paper")](
            order=self.predictor_order,
            corrector_nodes=(lambda order: self.corrector_order) if self.corrector_order else None,
            lower_order_final=self.lower_order_final,
            mode=self.mode,
            corrects_last=not self.few_step and self.orders != "comfyui",
            prediction=self.prediction,
            tau=_EndsDeterministic(tau) if self.few_step else tau,
        )

    def table(self, grid: TimeGrid) -> Plan:
        """Return the rows; over noise predictions they are tried on Gaussian data, but for batches of grids."""
        plan = super().table(grid)
        if self.prediction == "epsilon" and grid.times.ndim == 1:
            self._check_stable(plan)
        return plan

    def _check_stable(self, plan: Plan) -> None:
        variances = torch.tensor(VARIANCES, dtype=torch.float64)
        exact = exact_std(plan, variances)
        ratio = float((response(plan, variances).std(exact[0]) / exact[-1]).max())
        said = (
            f"SA-Solver over noise predictions is {'unstable' if not ratio <= UNSTABLE else 'barely stable'} on a grid "
            f"of so few steps ({plan.steps}): samples of Gaussian data spread {ratio:.3g} times as far as these; take "
            "prediction='x0', which is stable, a smaller τ, lower orders or more steps."
        )
        if plan.stochastic and not ratio <= UNSTABLE:
            raise InputError(said)
        if not ratio <= DOUBTFUL:
            warnings.warn(said, UserWarning, stacklevel=5)

    def predict(self, intervals: Intervals, order: int) -> Coefficients:
        """Return the Adams-Bashforth rows."""
        if order == 2 and self.few_step:
            return half_slope(intervals, -1, intervals.h + intervals.damping)
        return adams(intervals, range(0, -order, -1), self.prediction)

    def correct(self, intervals: Intervals, nodes: int) -> Coefficients:
        """Return the Adams-Moulton rows."""
        if nodes == 2 and self.few_step:
            return half_slope(intervals, 1, intervals.h + intervals.damping)
        return adams(intervals, range(1, 1 - nodes, -1), self.prediction)


@dataclass(frozen=True)
class _Apart(Schedule):
    """The denoising to the noise-free end is no step over which orders fall."""

    def left(self, n: int, grid: TimeGrid) -> int:
        return max(1, grid.steps - int(grid.ends_at_zero) - n)


@dataclass(frozen=True)
class _Early(_Apart):
    """ComfyUI's: correctors fall an interval earlier, and nothing falls on grids that end before the noise-free end."""

    def left(self, n: int, grid: TimeGrid) -> int:
        return super().left(n, grid) if grid.ends_at_zero else grid.steps

    def corrector_order(self, n: int, grid: TimeGrid) -> int:
        nodes = super().corrector_order(n, grid)
        if not grid.ends_at_zero:
            return nodes
        if self.mode == "PEC" and n == grid.steps - 2:
            return 0
        return min(nodes, self.left(n, grid)) if self.lower_order_final else nodes


_SCHEDULES: dict[str, type[Schedule]] = {"paper": _Apart, "diffusers": Schedule, "comfyui": _Early}


@dataclass(frozen=True)
class _EndsDeterministic(Tau):
    """The inner τ, but 0 in the last interval."""

    inner: Tau

    def at(self, grid: TimeGrid) -> Tensor:
        tau = self.inner.at(grid).clone()
        tau[..., -1] = 0.0
        return tau

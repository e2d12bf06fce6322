"""Solvers that look at one interval only: Euler, DDIM and Heun."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fewstep.checks import real
from fewstep.errors import InputError, unknown_name
from fewstep.solvers.adams import Coefficients, Intervals, adams
from fewstep.solvers.multistep import MultistepSolver, Schedule
from fewstep.time_grid import TimeGrid

__all__ = ["DDIM", "Euler", "Heun"]


@dataclass(frozen=True)
class Euler(MultistepSolver):
    r"""Euler's method on x/α in the variable σ/α: first order, one call a step.

        x_end = (σ_end/σ)·x + α_end·(1 − e^{−h})·D.

    Equals ``DDIM(eta=0)``, ``DPMSolverPP(order=1)``, ``DEIS(order=1)``,
    ``UniPC(order=1, corrector=False)``, ``SASolver(1, 0, tau=0)``, and Euler's method on a flow's velocity.

    Source: Karras et al., EDM (arXiv 2206.00364), the first half of algorithm 1; Song et al. (arXiv 2010.02502).
    """

    name = "euler"

    def schedule(self, grid: TimeGrid) -> Schedule:
        """Return one row an interval."""
        return Schedule(order=1)

    def predict(self, intervals: Intervals, order: int) -> Coefficients:
        """Return the exact rows of a constant prediction."""
        return adams(intervals, [0])


@dataclass(frozen=True)
class DDIM(MultistepSolver):
    r"""DDIM, from deterministic (η = 0) to ancestral (η = 1): first order, one call a step.

        x_end = α_end·D + √(σ_end² − s²)·ε̂ + s·ξ with s = η·σ_end·√(1 − e^{−2h}).

    η = 0 is deterministic (``Euler()``), η = 1 is ancestral sampling, DDPM's posterior.
    Equals ``SASolver(1, 0, tau)`` with e^{−τ²h} = √(1 − η²·(1 − e^{−2h})) in each step; η = 1 is τ = 1.

    Source: Song et al., Denoising Diffusion Implicit Models (arXiv 2010.02502), eq. 12 and 16.

    Args:
        eta: from 0 to 1.

    Raises:
        InputError: if ``eta`` is outside [0, 1].
    """

    name = "ddim"
    eta: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings."""
        hint = "give a number from 0 (deterministic) to 1 (ancestral)"
        object.__setattr__(self, "eta", real("eta", self.eta, 0.0, 1.0, hint=hint))

    def schedule(self, grid: TimeGrid) -> Schedule:
        """Return one row an interval."""
        return Schedule(order=1)

    def predict(self, intervals: Intervals, order: int) -> Coefficients:
        """Return the rows over the newest prediction, ε̂ being (x − α·D)/σ."""
        added = -torch.expm1(-2.0 * intervals.h) * self.eta**2
        state = intervals.ratio * torch.sqrt(1.0 - added)
        alpha_start = intervals.grid.alpha[..., intervals.n]
        return Coefficients(
            state_weight=state,
            history_weights=(intervals.alpha_end - state * alpha_start)[..., None],
            noise_scale=intervals.sigma_end * added.sqrt(),
        )


@dataclass(frozen=True)
class Heun(MultistepSolver):
    r"""Heun's method: Euler, then the trapezoidal rule; second order, two calls a step.

    In the variable σ/α ("ratio"), with D' the prediction at Euler's point and r = e^{−h}, the ratio of the two σ/α,

        x_end = (σ_end/σ)·x + α_end·[½·(1/r − 1)·D' + (1 − r − ½·(1/r − 1))·D],

    which for EDM's process is its x + ½·(t_end − t)·(d + d') with d = (x − D)/t. In the process's time ("time")
    it is x + ½·(t_end − t)·(v + v') with the velocity v = dx/dt, for processes whose α and σ are straight lines in t:
    with Δα and Δσ their changes,

        x_end = (σ_end/σ)·x + ½·[(Δα − α_end·Δσ/σ_end)·D' + (Δα − 2·α·Δσ/σ + α_end·Δσ/σ_end)·D].

    For a flow v is what the network predicts, and the method may start at t = 1; there σ/α, which goes to ∞, makes
    poor steps. For EDM's process both are the same. A last interval to the noise-free end costs one call.

    Equals: k-diffusion's ``sample_heun`` without churn, and ComfyUI's heun on flows too.

    Source: Karras et al., EDM (arXiv 2206.00364), algorithm 1 without churn; in time, Liu et al. (arXiv 2209.03003).

    Args:
        variable: "time", "ratio", or "auto": the time where α and σ are straight in it, else the ratio.

    Raises:
        InputError: for another variable; by ``plan``, for "time" where α and σ are not straight.
    """

    name = "heun"
    variable: Literal["auto", "time", "ratio"] = "auto"

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.variable not in ("auto", "time", "ratio"):
            raise unknown_name("variable", self.variable, ("auto", "time", "ratio"))

    def schedule(self, grid: TimeGrid) -> Schedule:
        """Return two rows an interval, both with a call."""
        if self.variable == "time" and not grid.process.straight:
            raise InputError(
                f"variable is 'time', and α and σ of {grid.process!r} are not straight lines in it: write 'ratio'."
            )
        return _Trapezoidal(
            order=1, corrector_nodes=lambda order: 2, mode="PECE", corrects_last=True, from_noise=self._in_time(grid)
        )

    def _in_time(self, grid: TimeGrid) -> bool:
        return grid.process.straight and self.variable != "ratio"

    def predict(self, intervals: Intervals, order: int) -> Coefficients:
        """Return Euler's rows."""
        return adams(intervals, [0])

    def correct(self, intervals: Intervals, nodes: int) -> Coefficients:
        """Return the trapezoidal rows over (D', D)."""
        weights = _over_time(intervals) if self._in_time(intervals.grid) else _over_ratio(intervals)
        return Coefficients(
            state_weight=intervals.ratio, history_weights=weights, noise_scale=torch.zeros_like(intervals.ratio)
        )


@dataclass(frozen=True)
class _Trapezoidal(Schedule):
    """A correction of two nodes in every finite interval; ``from_noise``: also in one from α = 0."""

    from_noise: bool = False

    def corrector_order(self, n: int, grid: TimeGrid) -> int:
        finite = grid.steps - int(grid.ends_at_zero)
        defined = self.from_noise or n > 0 or not grid.starts_at_pure_noise
        return 2 if n < finite and defined else 0


def _over_ratio(intervals: Intervals) -> Tensor:
    """Return the weights of (D', D) by the trapezoidal rule in σ/α; written with 1 − r = 1 − e^{−h}."""
    kept, lost = torch.exp(-intervals.h), -torch.expm1(-intervals.h)
    new = 0.5 * lost / kept
    return intervals.alpha_end[..., None] * torch.stack([new, lost - new], dim=-1)


def _over_time(intervals: Intervals) -> Tensor:
    """Return the weights of (D', D) by the trapezoidal rule in t."""
    grid, n = intervals.grid, intervals.n
    alpha, sigma = grid.alpha[..., n], grid.sigma[..., n]
    rise, fall = intervals.alpha_end - alpha, intervals.sigma_end - sigma
    at_end = intervals.alpha_end * fall / intervals.sigma_end
    return 0.5 * torch.stack([rise - at_end, rise - 2.0 * alpha * fall / sigma + at_end], dim=-1)

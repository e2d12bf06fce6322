"""Solvers that look at one interval only: Euler, DDIM and Heun."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fewstep.errors import InputError
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

    η = 0 is deterministic (``Euler()``), η = 1 is ancestral sampling, DDPM's own posterior.
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
        if not 0 <= self.eta <= 1:
            raise InputError(f"eta is {self.eta!r}: give a number from 0 (deterministic) to 1 (ancestral).")

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
    r"""EDM's Heun method: Euler, then the trapezoidal rule; second order, two calls a step.

    With D' the prediction at Euler's point and r = e^{−h}, the ratio of the two σ/α,

        x_end = (σ_end/σ)·x + α_end·[½·(1/r − 1)·D' + (1 − r − ½·(1/r − 1))·D],

    which is EDM's x + ½·(t_end − t)·(d + d') with d = (x − D)/t. A last interval to the noise-free end
    costs one call.

    Source: Karras et al., EDM (arXiv 2206.00364), algorithm 1 without churn.
    """

    name = "heun"

    def schedule(self, grid: TimeGrid) -> Schedule:
        """Return two rows an interval, both with a call."""
        return Schedule(order=1, corrector_nodes=lambda order: 2, mode="PECE", corrects_last=True)

    def predict(self, intervals: Intervals, order: int) -> Coefficients:
        """Return Euler's rows."""
        return adams(intervals, [0])

    def correct(self, intervals: Intervals, nodes: int) -> Coefficients:
        """Return the trapezoidal rows over (D', D); written with 1 − r = 1 − e^{−h}."""
        kept, lost = torch.exp(-intervals.h), -torch.expm1(-intervals.h)
        new = 0.5 * lost / kept
        weights = intervals.alpha_end[..., None] * torch.stack([new, lost - new], dim=-1)
        return Coefficients(state_weight=intervals.ratio, history_weights=weights, noise_scale=torch.zeros_like(kept))

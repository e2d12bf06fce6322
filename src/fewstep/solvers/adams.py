r"""Exact Adams coefficients: polynomials in λ integrated against an exponential.

All integrals are taken over one step, in u = (λ − λ_end)/h, which runs from −1 to 0: relative to the
step's end, no power of λ ever has to cancel another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fewstep.time_grid import TimeGrid

__all__ = ["Coefficients", "Intervals", "adams", "exponential_moments", "interpolation_weights"]


@dataclass(frozen=True)
class Intervals:
    """Some intervals n of a grid, with c = 1 + τ² in each: what rules of one order see at once.

    The grid has N intervals; ``n`` is int64 [S]; ``tau`` [..., S].
    """

    grid: TimeGrid
    n: Tensor
    tau: Tensor

    @cached_property
    def alpha_end(self) -> Tensor:
        """α at the end, [..., S]."""
        return self.grid.alpha[..., self.n + 1]

    @cached_property
    def sigma_end(self) -> Tensor:
        """σ at the end, [..., S]."""
        return self.grid.sigma[..., self.n + 1]

    @cached_property
    def h(self) -> Tensor:
        """The step in λ, [..., S]; ∞ to the noise-free end and from pure noise."""
        return self.grid.half_logsnr[..., self.n + 1] - self.grid.half_logsnr[..., self.n]

    @cached_property
    def damping(self) -> Tensor:
        """T = τ²·h, the integral of τ² over the step; 0 for τ = 0 even if h is infinite, [..., S]."""
        return torch.where(self.tau == 0, torch.zeros_like(self.h), self.tau**2 * self.h)

    def positions(self, offsets: Sequence[int]) -> Tensor:
        """Return u = (λ_{n + offset} − λ_{n+1})/h for each offset, [..., S, len(offsets)]."""
        points = self.grid.half_logsnr[..., self.n[:, None] + torch.as_tensor(offsets)]
        return (points - self.grid.half_logsnr[..., self.n + 1, None]) / self.h[..., None]

    @cached_property
    def ratio(self) -> Tensor:
        """σ_end/σ_start, [..., S]."""
        return self.sigma_end / self.grid.sigma[..., self.n]


@dataclass(frozen=True)
class Coefficients:
    """Rows of one kind and order: history_weights [..., S, p] in the order of the nodes, the others [..., S]."""

    state_weight: Tensor
    history_weights: Tensor
    noise_scale: Tensor


def adams(intervals: Intervals, offsets: Sequence[int], prediction: str = "x0") -> Coefficients:
    r"""Return the rows whose polynomial runs through the grid points n + offset and is integrated exactly.

    Data prediction, with h the step in λ and c = 1 + τ²:

        x_end = (σ_end/σ_start)·e^{−τ²h}·x + α_end·∫_{−h}^0 c·e^{cs}·D(s) ds + σ_end·√(1 − e^{−2τ²h})·ξ.

    Noise prediction:

        x_end = (α_end/α_start)·x − c·σ_end·∫_{−h}^0 e^{−s}·ε̂(s) ds + τ·σ_end·√(e^{2h} − 1)·ξ.

    Offsets 0, −1, … are past evaluations (Adams-Bashforth), offset 1 is the new one (Adams-Moulton).
    Source: SA-Solver (arXiv 2309.05019), eq. 13-18 and its appendix on the noise prediction.
    """
    h = intervals.h
    if prediction == "x0":
        c = 1.0 + intervals.tau**2
        weights = _integrals(c * h, intervals, offsets)
        return Coefficients(
            state_weight=intervals.ratio * torch.exp(-intervals.damping),
            history_weights=intervals.alpha_end[..., None] * weights,
            noise_scale=intervals.sigma_end * torch.sqrt(-torch.expm1(-2.0 * intervals.damping)),
        )
    weights = _integrals_from_start(h, intervals, offsets)
    alpha_ratio = intervals.alpha_end / intervals.grid.alpha[..., intervals.n]
    sigma_start = intervals.grid.sigma[..., intervals.n]
    scale = (1.0 + intervals.tau**2) * sigma_start * alpha_ratio
    spread = torch.sqrt((sigma_start * alpha_ratio) ** 2 - intervals.sigma_end**2)
    return Coefficients(
        state_weight=alpha_ratio, history_weights=-scale[..., None] * weights, noise_scale=intervals.tau * spread
    )


def exponential_moments(z: Tensor, count: int) -> Tensor:
    r"""Return m_k = ∫_{−1}^0 z·e^{zu}·u^k du for k = 0 … count − 1, [..., count], for z > 0.

    m_k = (−1)^k·k!·P(k + 1, z)/z^k with P the regularised lower incomplete gamma function: no term
    cancels for any z; m_0 = 1 − e^{−z}.
    """
    moments = [-torch.expm1(-z)]
    factorial = 1.0
    for k in range(1, count):
        factorial *= -k
        moments.append(factorial * torch.special.gammainc(torch.full_like(z, k + 1), z) / z**k)
    return torch.stack(moments, dim=-1)


def interpolation_weights(nodes: Tensor, moments: Tensor) -> Tensor:
    r"""Return w with Σ_j w_j·u_j^k = m_k for every k: the moments of the Lagrange polynomials at ``nodes``.

    The system is a Vandermonde one, solved as Björck & Pereyra (1970) do: O(p²), and accurate where a
    general solver is not. Both arguments are [..., p], as is the result.
    """
    u, w = nodes.unbind(-1), list(moments.unbind(-1))
    p = len(w)
    for k in range(p - 1):
        for i in range(p - 1, k, -1):
            w[i] = w[i] - u[k] * w[i - 1]
    for k in range(p - 2, -1, -1):
        for i in range(k + 1, p):
            w[i] = w[i] / (u[i] - u[i - k - 1])
        for i in range(k, p - 1):
            w[i] = w[i] - w[i + 1]
    return torch.stack(w, dim=-1)


def _integrals(z: Tensor, intervals: Intervals, offsets: Sequence[int]) -> Tensor:
    """Return ∫_{−1}^0 z·e^{zu}·ℓ_j(u) du for the Lagrange polynomials through the offsets."""
    moments = exponential_moments(z, len(offsets))
    return moments if len(offsets) == 1 else interpolation_weights(intervals.positions(offsets), moments)


def _integrals_from_start(h: Tensor, intervals: Intervals, offsets: Sequence[int]) -> Tensor:
    """Return ∫_0^1 h·e^{−hv}·ℓ_j(v) dv with v = u + 1: the noise form decays away from the step's start."""
    moments = exponential_moments(h, len(offsets))
    if len(offsets) == 1:
        return moments
    signs = torch.tensor([(-1.0) ** k for k in range(len(offsets))], dtype=torch.float64)
    return interpolation_weights(intervals.positions(offsets) + 1.0, moments * signs)

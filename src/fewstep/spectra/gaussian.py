r"""The closed form of a plan on Gaussian data.

Data whose mode k (a frequency, or an eigenvector of the covariance) is normal with variance v has, in that mode,

    D(x, t) = g_t·x with g_t = α_t·v/m_t² and m_t = √(α_t²·v + σ_t²), the standard deviation of x_t,

and the solution x_t = m_t·x_T/m_T. What a plan makes of a mode is therefore known without a network, a sample or a
draw, for any solver, process and end. A mean μ ≠ 0 changes nothing: D = μ + g·(x − α·μ), and plans reproduce a constant
data prediction.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fewstep.errors import InputError
from fewstep.plan import Plan
from fewstep.processes.base import on_host

__all__ = ["Response", "end_errors", "exact_gain", "exact_std", "interval_errors", "local_errors", "response"]


class Response(NamedTuple):
    """What a plan makes of each mode: x_N = gain·x_T + Σ_n noise_n·ξ_n.

    Attributes:
        gain: [..., K].
        noise: [..., N, K], for the noise ξ_n of each interval; zeros for a deterministic plan.
    """

    gain: Tensor
    noise: Tensor

    def std(self, start: Tensor) -> Tensor:
        """Return the standard deviation of x_N, [..., K], for x_T of standard deviation ``start``."""
        return torch.sqrt((self.gain * start) ** 2 + (self.noise**2).sum(-2))


def exact_std(plan: Plan, variances: Tensor) -> Tensor:
    """Return the standard deviation of x_t in each mode at each time of the grid, [..., N + 1, K]."""
    alpha, sigma = plan.grid.alpha[..., None], plan.grid.sigma[..., None]
    return torch.sqrt(alpha**2 * variances + sigma**2)


def exact_gain(plan: Plan, variances: Tensor) -> Tensor:
    """Return what the ODE's solution makes of x_T in each mode, m_N/m_T, [..., K]."""
    std = exact_std(plan, variances)
    return std[..., -1, :] / std[..., 0, :]


@on_host
def response(plan: Plan, variances: Tensor) -> Response:
    r"""Return what ``plan`` makes of modes with ``variances``, exactly.

    For x_T ~ N(0, m_T²) the output is normal with variance (gain·m_T)² + Σ_n noise_n². Differentiable in the plan's
    coefficients and times.

    Args:
        plan: any plan, also a batch of them [...].
        variances: v of each mode, float64 [K], at least 0.
    """
    gains = _prediction_gains(plan, variances)
    unit = torch.ones_like(exact_gain(plan, variances))
    silent = torch.zeros(*unit.shape[:-1], plan.steps, unit.shape[-1], dtype=torch.float64)
    base = current = Response(unit, silent)
    history: list[Response] = []
    one_hot = torch.eye(plan.steps, dtype=torch.float64)[..., None]
    interval = made = 0
    for row, (n, predicts) in enumerate(zip(plan.interval.tolist(), plan.predicts.tolist(), strict=True)):
        if n != interval:
            base, interval = current, n
        if predicts:
            gain = gains[..., made, :]
            made += 1
            history.insert(0, Response(gain * current.gain, gain[..., None, :] * current.noise))
        weights = plan.history_weights[..., row, :, None]
        state, scale = plan.state_weight[..., row, None], plan.noise_scale[..., row, None, None]
        gain, noise = state * base.gain, state[..., None] * base.noise + scale * one_hot[n]
        for j, past in enumerate(history[: weights.shape[-2]]):
            gain = gain + weights[..., j, :] * past.gain
            noise = noise + weights[..., j, None, :] * past.noise
        current = Response(gain, noise)
    return current


@on_host
def end_errors(plan: Plan, variances: Tensor) -> Tensor:
    r"""Return the error of the result in each mode, exactly, [..., K], for x_T as the process has it.

    A deterministic plan's is the root mean square distance from the ODE's solution, with the sign of the difference; a
    stochastic plan's is how much more the result varies than the data do, the difference of the standard deviations
    (their Wasserstein distance). Where nothing is random the two are the same.

    Differentiable in the plan's coefficients and times.
    """
    made, std = response(plan, variances), exact_std(plan, variances)
    if plan.stochastic:
        return made.std(std[..., 0, :]) - std[..., -1, :]
    return made.gain * std[..., 0, :] - std[..., -1, :]


@on_host
def local_errors(plan: Plan, variances: Tensor) -> Tensor:
    r"""Return the error that each interval alone adds to the end in each mode, [..., N, K], signed.

    The interval's rows start from the exact solution, and what they remember of earlier intervals is exact too; calls
    within the interval, a predictor's, see what the rows before them made. What they then make, less the exact next
    state, is carried to the end by the exact solution. So no errors of different intervals cancel: a plan's error on
    Gaussian data is about the sum of these, a network's is rather the sum of their sizes.

    A stochastic plan's is the error of the standard deviation. With y = x/m and T = τ²·h of the interval's noise, the
    exact SDE is

        y' = ρ·y + √(1 − ρ²)·η with ρ = [(m/α)'/(m/α)]^{τ²},

    which gives the joint law of the states that rows look at, and carries an error to the end times the ρ² of the
    intervals that follow: noise forgets errors.

    Differentiable in the plan's coefficients and times.

    Args:
        plan: any plan, also a batch of them [...].
        variances: v of each mode, float64 [K], above 0.
    """
    rows, std = _Rows(plan, _prediction_gains(plan, variances)), exact_std(plan, variances)
    start = (plan.state_weight[..., None] * std[..., plan.interval, :])[..., None, :]
    if not plan.stochastic:
        made = rows.through_predictions(rows.seen(std).sum(-2, keepdim=True) + start)
        return (made[..., rows.last, 0, :] / std[..., 1:, :] - 1.0) * std[..., -1:, :]
    seen, noise = rows.seen(std), plan.noise_scale[..., None, None].expand_as(start)
    made = torch.cat([seen[..., :1, :] + start, seen[..., 1:, :], noise], dim=-2)
    made = rows.through_predictions(made)[..., rows.last, :, :] / std[..., 1:, None, :]
    kept = _kept(plan, plan.noise_scale[..., rows.last], std)
    later = torch.cat([kept[..., 1:, :], torch.ones_like(kept[..., :1, :])], dim=-2)
    decay = later.square().flip(-2).cumprod(-2).flip(-2)
    return (_variance(made, kept).sqrt() - 1.0) * decay * std[..., -1:, :]


def interval_errors(plan: Plan, variances: Tensor, weights: Tensor) -> Tensor:
    """Return the root mean square over modes of what each interval adds to the error at the end, [..., N].

    Args:
        plan: any plan, also a batch of them [...].
        variances: of the modes, float64 [K], above 0.
        weights: of the modes in the mean, float64 [K].
    """
    return (local_errors(plan, variances).square() @ weights).sqrt()


def _prediction_gains(plan: Plan, variances: Tensor) -> Tensor:
    """Return what each prediction makes of the state in each mode, [..., P, K]: D's gain, or that of ε̂.

    Raises:
        InputError: if an analytic prediction has gains for bands of the cosine transform, which mix modes.
    """
    points = plan.row_points[plan.predicts]
    alpha, sigma = plan.grid.alpha[..., points, None], plan.grid.sigma[..., points, None]
    gains = alpha * variances / (alpha**2 * variances + sigma**2)
    for place, formula in enumerate(plan.formulas):
        if formula is None:
            continue
        if formula.gain.shape[-1] != 1:
            raise InputError(
                "an analytic prediction by frequency bands is not known in each mode: predict by one gain."
            )
        one = torch.arange(gains.shape[-2]) == place
        gains = torch.where(one[:, None], formula.gain[..., None], gains)
    if plan.prediction == "x0":
        return gains
    network = torch.tensor([formula is None for formula in plan.formulas])
    exact = sigma / (alpha**2 * variances + sigma**2)  # (1 − α·gain)/σ, without its cancellation.
    return torch.where(network[:, None], exact, (1.0 - alpha * gains) / sigma)


class _Rows:
    """Which predictions the rows of a plan look at.

    Attributes:
        last: int64 [N], the last row of each interval.
    """

    def __init__(self, plan: Plan, gains: Tensor) -> None:
        interval, slots = plan.interval, torch.arange(plan.history_weights.shape[-1])
        at = plan.predicts.cumsum(0)[:, None] - 1 - slots
        there, at = at >= 0, at.clamp(min=0)
        source = torch.nonzero(plan.predicts).squeeze(-1)[at] - 1  # The row that made the state of a prediction.
        self.own = there & (source >= 0) & (interval[source.clamp(min=0)] == interval[:, None])
        first = torch.searchsorted(interval, interval)
        self.position = torch.arange(interval.numel()) - first
        self.last = torch.searchsorted(interval, torch.arange(plan.steps), right=True) - 1
        self.source = source
        self.points = plan.row_points[plan.predicts][at]
        lag = torch.where(there & ~self.own, interval[:, None] - self.points, 0)
        self.by_lag = torch.nn.functional.one_hot(lag).to(torch.float64)
        self.past = (there & ~self.own)[..., None]
        self.weighted = plan.history_weights[..., None] * gains[..., at, :]

    def seen(self, std: Tensor) -> Tensor:
        """Return what rows take from exact states of the grid, [..., R, L, K], by how many points these lie back."""
        taken = self.weighted * self.past * std[..., self.points, :]
        return torch.einsum("...rjk,rjl->...rlk", taken, self.by_lag)

    def through_predictions(self, made: Tensor) -> Tensor:
        """Return what rows make, [..., R, S, K], from what they make without predictions of their own interval."""
        for position in range(1, int(self.position.max()) + 1):
            for slot in range(self.own.shape[-1]):
                where = torch.nonzero(self.own[:, slot] & (self.position == position)).squeeze(-1)
                if len(where):
                    added = self.weighted[..., where, slot, None, :] * made[..., self.source[where, slot], :, :]
                    made = made.index_add(-3, where, added)
        return made


def _kept(plan: Plan, noise_scale: Tensor, std: Tensor) -> Tensor:
    """Return ρ, how the exact SDE correlates a state with the next one in each mode, [..., N, K].

    τ² is read from the noise: σ_end·√(1 − e^{−2τ²h}) over data predictions, τ·σ_end·√(e^{2h} − 1) over ε̂.
    """
    noisy = noise_scale != 0
    h = torch.where(noisy, plan.grid.half_logsnr.diff(dim=-1), 1.0)
    share = (noise_scale / torch.where(noisy, plan.grid.sigma[..., 1:], 1.0)) ** 2
    if plan.prediction == "x0":
        squared = -0.5 * torch.log1p(-share.clamp(max=1.0)) / torch.where(torch.isinf(h), 1.0, h)
    else:
        squared = share / torch.expm1(2.0 * h)
    level = (std.log() - plan.grid.alpha.log()[..., None]).diff(dim=-2)
    return torch.where(noisy[..., None], torch.exp(squared[..., None] * level), 1.0)


def _variance(made: Tensor, kept: Tensor) -> Tensor:
    """Return the variance of Σ_l made_l·y_{n−l} + noise·ξ, [..., N, K]; ``made`` is [..., N, L + 1, K], noise last.

    The states y are a Markov chain of unit variance, with correlation ``kept`` from each to the next.
    """
    lags, steps = made.shape[-2] - 1, kept.shape[-2]
    before = torch.cat([torch.ones_like(kept[..., :1, :]).expand(*kept.shape[:-2], lags, -1), kept], dim=-2)
    variance = covariance = torch.zeros_like(kept)
    for lag in reversed(range(lags)):
        weight, first = made[..., lag, :], lags - 1 - lag
        covariance = before[..., first : first + steps, :] * covariance
        variance = variance + 2.0 * weight * covariance + weight.square()
        covariance = covariance + weight
    return variance + made[..., lags, :].square()

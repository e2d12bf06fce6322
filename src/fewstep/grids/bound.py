"""The error bound of a plan on a grid, which optimised time steps minimise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fewstep.checks import as_number, real, shown
from fewstep.errors import InputError
from fewstep.plan import Plan
from fewstep.processes import Process
from fewstep.time_grid import TimeGrid

if TYPE_CHECKING:
    from fewstep.solvers.base import Solver

__all__ = ["Bound", "ErrorPower", "SAFEGUARDED", "error_profile"]

Profile = Callable[[Tensor], Tensor]
ErrorPower = float | Profile | Sequence[tuple[float, float]]
"""p of ε̃ = σ^p/α, or ε̃ as a function of λ, or measured pairs (λ, ε̃)."""

HIGHEST = 20
"""The largest p of ε̃ = σ^p/α: beyond it σ^p leaves float64."""
SAFEGUARDED = 7
"""The most steps for which the first three intervals are bounded one by one."""


def error_profile(process: Process, error: ErrorPower) -> Callable[[Tensor], Tensor]:
    """Return ε̃ as a function of the time.

    A power p gives σ^p/α. A function is asked at λ. Pairs (λ, ε̃) are interpolated linearly in log ε̃, and held
    beyond their ends.

    Raises:
        InputError: if p is not a positive number, or pairs are fewer than two, repeat a λ, or are not positive.
    """
    if callable(error):
        return lambda t: _positive(_asked(error, process.half_logsnr(t)))
    if as_number(error) is not None or not isinstance(error, Iterable) or isinstance(error, (str, bytes)):
        hint = f"give a positive number of at most {HIGHEST}; 1 for pixels, 2 for latents"
        power = real("error_power", error, 0.0, HIGHEST, above=True, hint=hint)
        return lambda t: process.sigma(t) ** power / process.alpha(t)
    try:
        pairs = np.asarray(error, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as wrong:
        raise InputError(f"error_power is {shown(error)}: give a positive number, or pairs (λ, ε̃).") from wrong
    if pairs.ndim != 2 or pairs.shape[-1] != 2 or len(pairs) < 2:
        raise InputError(f"the error profile has shape {pairs.shape}: give at least two pairs (λ, ε̃).")
    at, values = pairs[pairs[:, 0].argsort()].T
    if not (np.isfinite(at).all() and (np.diff(at) > 0).all()):
        raise InputError(f"the error profile's λ are {at.tolist()}: give finite ones, each once.")
    logs = np.log(_positive(torch.from_numpy(values)).numpy())
    return lambda t: torch.from_numpy(np.exp(np.interp(process.half_logsnr(t).numpy(), at, logs)))


def _asked(error: Callable[[Tensor], Tensor], half_logsnr: Tensor) -> Tensor:
    try:
        made = torch.as_tensor(error(half_logsnr), dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as wrong:
        raise InputError(
            f"error_power is {shown(error)}, which is not a function of λ, tensor to tensor: {wrong}."
        ) from wrong
    if made.shape != half_logsnr.shape:
        raise InputError(f"error_power returned {tuple(made.shape)} for λ of {tuple(half_logsnr.shape)}.")
    return made


def _positive(values: Tensor) -> Tensor:
    if not bool((torch.isfinite(values) & (values > 0)).all()):
        raise InputError(f"the error profile gave {values.flatten()[:8].tolist()}: ε̃ must be finite and above 0.")
    return values


class Bound:
    r"""The bound Σ_i \|W_i\|·ε̃_i of the final error, for a solver on any grid of N steps.

    The plan's rows are summed over the calls they share, so that terms of different intervals may cancel; the
    first and the last interval, and up to N = 7 the first three, are bounded one by one by the root of the sum of
    their squares (the published method's safeguard). The bound is relative to σ at the end. For grids to the
    noise-free end it is the error of the last data prediction itself, plus that of the state it is made from,
    over α; there every interval is bounded on its own, for on real networks grids that count on errors of
    different intervals to cancel are worse.

    Source: Xue et al. (arXiv 2402.17376), eq. 16-20 and section 3.4.
    """

    def __init__(self, process: Process, solver: Solver, error: ErrorPower, *, to_zero: bool) -> None:
        self.process, self.solver, self.to_zero = process, solver, to_zero
        self.profile = error_profile(process, error)

    def __call__(self, times: Tensor) -> Tensor:
        """Return the bound of each grid, float64 [B], for times [B, N + 1]."""
        terms, group = self.terms(times)
        return (terms**2 @ group).sqrt().sum(-1)

    def terms(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return terms [B, M] and their groups, one-hot [M, G]: the bound is Σ_groups √Σ terms²."""
        plan = self.solver.plan(TimeGrid(self.process, times))
        scaled = self._through_rows(plan)
        steps, calls = plan.steps, len(plan.formulas)
        by_step = torch.zeros(*scaled.shape[:-2], steps, calls, dtype=torch.float64)
        by_step.index_add_(-2, plan.interval, scaled)
        alone = torch.full((steps,), self.to_zero)
        alone[[0, steps - 1]] = True
        if steps <= SAFEGUARDED:
            alone[:3] = True
        terms = torch.cat([by_step[..., ~alone, :].sum(-2), by_step[..., alone, :].flatten(-2)], dim=-1)
        group = torch.cat([torch.arange(calls), calls + torch.arange(int(alone.sum())).repeat_interleave(calls)])
        used = self._used(plan, alone)
        return terms[..., used], torch.nn.functional.one_hot(group[used]).to(torch.float64)

    def _used(self, plan: Plan, alone: Tensor) -> Tensor:
        """Return which terms can be other than 0, bool [M]: the same for every batch of grids."""
        back = plan.predicts.cumsum(0)[:, None] - 1 - torch.arange(len(plan.formulas))
        looks = (back >= 0) & (back < plan.history_weights.shape[-1])
        by_step = torch.zeros(plan.steps, len(plan.formulas)).index_add_(0, plan.interval, looks.to(torch.float32)) > 0
        return torch.cat([by_step[~alone].any(0), by_step[alone].flatten()])

    def _through_rows(self, plan: Plan) -> Tensor:
        """Return what each prediction adds to the final error through each row, [B, R, P]."""
        error = self.profile(plan.prediction_times)[..., None, :]
        if not self.to_zero:
            return plan.contributions()[1] * error / self.process.sigma(plan.times[..., -1])[..., None, None]
        before = int(torch.nonzero(plan.predicts)[-1]) - 1
        scaled = torch.zeros(*plan.state_weight.shape, len(plan.formulas), dtype=torch.float64)
        if before >= 0:
            alpha = self.process.alpha(plan.prediction_times[..., -1])[..., None, None]
            scaled = plan.contributions(before)[1] * error / alpha
        scaled[..., before + 1 :, :] = 0.0
        scaled[..., -1, -1] = error[..., 0, -1]
        return scaled

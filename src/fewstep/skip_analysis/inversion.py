"""The inversion of real samples to noise along the model's ODE, and its distance to a Gaussian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep import checks
from fewstep.errors import InputError
from fewstep.executor import NoiseSource, execute
from fewstep.grids.heuristic import checked_steps
from fewstep.inversion import NoisePredictor
from fewstep.metrics.neighbours import mmd
from fewstep.processes import Process
from fewstep.skip_analysis.real_data import RealData
from fewstep.solvers import UniPC
from fewstep.time_grid import TimeGrid

__all__ = ["NoiseStatistics", "invert", "noise_statistics"]

FRESH = 4
"""Draws of a true Gaussian from which the size of a chance MMD² is taken."""


@dataclass(frozen=True)
class NoiseStatistics:
    """A set of noises compared with N(0, 1).

    Attributes:
        mean, variance: of all values; 0 and 1 for a Gaussian.
        kurtosis: excess kurtosis of all values; 0.
        neighbours: correlation of horizontally adjacent values; 0.
        mmd: unbiased MMD² to as many draws of N(0, 1), ``fewstep.metrics.neighbours.mmd``; 0 but for chance.
        chance: the root mean square of the MMD² between draws of N(0, 1) of this size.
    """

    mean: float
    variance: float
    kurtosis: float
    neighbours: float
    mmd: float
    chance: float


@torch.no_grad()
def invert(data: RealData, steps: int = 40) -> Tensor:
    r"""Return the noise x_T/σ_T [n, …] that the model's ODE makes of real samples, in ``steps`` network calls.

    The ODE is run from t_min up to t_max, evenly in λ, by UniPC of order 3 with noise and data exchanged. It starts
    from α·x_0 + σ·ε, the distribution that x_t has at t_min, so that an exact model gives noise that is exactly
    Gaussian (but for what is left of the data at t_max).

    Raises:
        InputError: if ``steps`` is below 1.
        NonFiniteStateError: if a state stops being finite.
    """
    checks.instance(RealData, "data", data, "give an fs.skip_analysis.RealData")
    process, predictor = data.denoiser.process, NoisePredictor(data.denoiser)
    grid = _grid(predictor.process, steps)
    plan = UniPC(order=3, variant="exact", lower_order_final=False).plan(grid)
    start, final = float(process.t_min), float(process.sigma(process.t_max))
    alpha, sigma = float(process.alpha(start)), float(process.sigma(start))
    made: list[Tensor] = []
    for number, (x_0, noise, cond) in enumerate(data.parts()):

        def inverted(x_0: Tensor = x_0, noise: Tensor = noise, cond: Any = cond) -> tuple[Tensor]:
            state = alpha * x_0 + sigma * noise
            end = execute(plan, predictor, state, cond=cond, callback=lambda *_: data.progress())
            return ((end / final).cpu(),)

        made += data.kept(f"inversion/{steps}/{number}", steps, inverted)
    return torch.cat(made)


def _grid(process: Process, steps: int) -> TimeGrid:
    """Return the grid from data to noise that is even in λ; both ends are exact."""
    first, last = (float(process.half_logsnr(t)) for t in (process.t_max, 0.0))
    times = process.time(torch.linspace(first, last, checked_steps(steps) + 1, dtype=torch.float64))
    times[0], times[-1] = process.t_max, 0.0
    return TimeGrid(process, times)


def noise_statistics(noise: Tensor, seed: int = 0) -> NoiseStatistics:
    """Return moments of noises [n, …] and their MMD² to a Gaussian, whose draws depend on ``seed`` alone.

    Raises:
        InputError: if there are fewer than two noises.
    """
    noise = checks.tensor("noise", noise, "give real noises [n, …]")
    seed = checks.whole("seed", seed, 0, 2**62)
    if noise.is_meta or noise.ndim < 2 or not noise.numel() or not bool(torch.isfinite(noise).all()):
        raise InputError(f"noise is {tuple(noise.shape)}: give finite noises [n, …].")
    if len(noise) < 2:
        raise InputError(f"there are {len(noise)} noises: at least 2 are needed.")
    rows = noise.double().cpu()
    centred = rows - rows.mean()
    variance = centred.square().mean()
    adjacent = (centred[..., :-1] * centred[..., 1:]).mean() if rows.shape[-1] > 1 else torch.zeros(())
    fresh = torch.empty(FRESH + 1, *rows.shape, dtype=torch.float64)
    NoiseSource(FRESH + 1, fresh.device, seeds=range(seed, seed + FRESH + 1), stream=1).fill(fresh)
    flat, (reference, *others) = rows.flatten(1), fresh.flatten(2).unbind()
    chance = torch.tensor([mmd(other, reference) for other in others]).square().mean().sqrt()
    return NoiseStatistics(
        mean=float(rows.mean()),
        variance=float(variance),
        kurtosis=float(centred.pow(4).mean() / variance**2 - 3.0),
        neighbours=float(adjacent / variance),
        mmd=mmd(flat, reference),
        chance=float(chance),
    )

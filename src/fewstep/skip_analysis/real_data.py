"""Real samples with noise that is the same at every evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fewstep import checks
from fewstep.denoiser import DataPredictor, network_device
from fewstep.errors import InputError
from fewstep.executor import NoiseSource, checked_seeds
from fewstep.journal import Keep, anew, resumed
from fewstep.plan import Plan
from fewstep.processes import Process

__all__ = ["RealData", "noise_levels", "plan_levels"]

LOWEST, HIGHEST = 0.01, 80.0
MOST = 10_000
"""The most noise levels."""


def noise_levels(process: Process, count: int = 12) -> tuple[float, ...]:
    """Return ``count`` noise levels σ/α, evenly spaced in their logarithm from 0.01 to 80, within the process's ends.

    Raises:
        InputError: if there are fewer than two.
    """
    checks.instance(Process, "process", process, "give one such as fs.processes.EDM()")
    count = checks.whole("count", count, 2)
    if count > MOST:
        raise InputError(f"count is {count}: give at most {MOST} noise levels.")
    ends = process.half_logsnr(torch.tensor([process.t_min, process.t_max], dtype=torch.float64)).neg().exp()
    low, high = max(float(ends[0]), LOWEST), min(float(ends[1]), HIGHEST)
    return tuple(low * (high / low) ** (i / (count - 1)) for i in range(count))


def plan_levels(plan: Plan) -> tuple[float, ...]:
    """Return the noise levels σ/α at which a plan calls the network, but for pure noise; falling, each once."""
    checks.instance(Plan, "plan", plan, "give a Plan, as solver.plan(grid) returns")
    levels = plan.process.half_logsnr(plan.call_times).neg().exp()
    return tuple(dict.fromkeys(level for level in levels.tolist() if 0 < level < math.inf))


@dataclass(frozen=True)
class RealData:
    r"""Real samples x_0 and, for each, a seed whose noise ε makes x_t = α·x_0 + σ·ε at every noise level.

    Since ε is the same at every level and for every setting of the network, differences between settings are
    measured on common noise.

    Args:
        denoiser: the data prediction to measure.
        x_0: [n, …], in the units of the process (images in [−1, 1], or latents).
        seeds: one for each sample; 0, 1, 2, … by default.
        cond: the condition of each sample, a tensor [n, …] or keywords of such, or one for all.
        batch_size: samples in a network call.
        progress: called after each network call.
        keep: where what was measured is kept; see ``fewstep.journal``.

    Raises:
        InputError: if shapes do not fit the denoiser, a value is not finite, or a condition is out of range.
    """

    denoiser: DataPredictor
    x_0: Tensor
    seeds: Sequence[int] | None = None
    cond: Any = None
    batch_size: int = 64
    progress: Callable[[], None] = field(default=lambda: None, repr=False)
    keep: Keep = field(default=anew, repr=False)

    def __post_init__(self) -> None:
        """Check the samples, and draw nothing."""
        checks.instance(DataPredictor, "denoiser", self.denoiser, "give an fs.Denoiser")
        shape, x_0 = self.denoiser.shape, checks.tensor("x_0", self.x_0, "give real samples as floats [n, …]")
        if x_0.ndim < 2 or not len(x_0) or x_0.is_meta:
            raise InputError(f"x_0 is {tuple(x_0.shape)} {x_0.dtype}: give real samples as floats [n, …].")
        if shape is not None and tuple(x_0.shape[1:]) != shape:
            raise InputError(f"the samples are {tuple(x_0.shape[1:])}, the model takes {shape}.")
        if not bool(torch.isfinite(x_0).all()):
            raise InputError("a sample holds NaN or infinity: leave it out.")
        object.__setattr__(self, "batch_size", checks.whole("batch_size", self.batch_size))
        checks.function("keep", self.keep, "give a journal's, or leave it out")
        checks.function("progress", self.progress, "give a function without arguments")
        seeds = checked_seeds(range(len(x_0)) if self.seeds is None else self.seeds, len(x_0))
        object.__setattr__(self, "seeds", seeds)
        object.__setattr__(self, "cond", self.denoiser.check_cond(self.cond, len(x_0)))

    def __len__(self) -> int:
        return len(self.x_0)

    @property
    def batches(self) -> int:
        """The number of batches, each a network call at one noise level."""
        return math.ceil(len(self) / self.batch_size)

    def parts(self) -> Iterator[tuple[Tensor, Tensor, Any]]:
        """Yield (x_0, ε, condition) of one batch after the other, on the denoiser's device."""
        assert self.seeds is not None
        device = network_device(self.denoiser, self.x_0)
        for start in range(0, len(self), self.batch_size):
            part = slice(start, start + self.batch_size)
            x_0 = self.x_0[part].to(device)
            noise = torch.empty_like(x_0)
            NoiseSource(len(x_0), device, seeds=self.seeds[part]).fill(noise)
            yield x_0, noise, _part(self.cond, part, device)

    def kept(self, key: str, calls: int, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Return ``make()``, which makes so many calls, or what it returned in a run that was stopped."""
        return resumed(self.keep, key, make, calls, self.progress)

    @torch.no_grad()
    def predictions(self, level: float) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x_0, D(x_t)) batch by batch, at the noise level σ/α = ``level``.

        Raises:
            InputError: if the process has no such level.
        """
        process = self.denoiser.process
        if not (math.isfinite(level) and level > 0):
            raise InputError(f"the noise level σ/α is {level!r}: give a finite number above 0.")
        t = process.time(torch.tensor(-math.log(level), dtype=torch.float64))
        if not bool(torch.isfinite(t)) or float(t) > process.t_limit:
            raise InputError(f"{process!r} has no noise level σ/α = {level:g}.")
        alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
        t = t.to(network_device(self.denoiser, self.x_0))
        for x_0, noise, cond in self.parts():
            yield x_0, self.denoiser(alpha * x_0 + sigma * noise, t, cond)
            self.progress()


def _part(cond: Any, part: slice, device: torch.device) -> Any:
    """Return the conditions of some samples; what is not one for each is handed on."""
    if isinstance(cond, Mapping):
        return {name: _part(value, part, device) for name, value in cond.items()}
    if not isinstance(cond, Tensor) or not cond.ndim:
        return cond
    return (cond if len(cond) == 1 else cond[part]).to(device)

"""The noise of a pipeline's steps: from the generator it passes, or from the scheduler's seed."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.executor import Generators, NoiseSource
from fewstep.executor.noise import STEPS, generators

__all__ = ["StepNoise"]


class StepNoise:
    """Standard normal noise for one run of a pipeline.

    Without a generator image b has the noise of ``seed + b``, whatever its batch and device (``NoiseSource``); a run
    that begins later than its first step, at the time ``level``, draws other noise than one from the first. A generator
    of another device than the latents (the usual one: on the CPU) draws there, and its noise is copied.
    """

    def __init__(self, seed: int, level: float | None = None) -> None:
        self.seed, self.level = seed, level
        self._own: NoiseSource | None = None

    def fill(self, out: Tensor, generator: Generators | None) -> None:
        """Fill ``out`` [batch, …] with standard normal noise."""
        if generator is None:
            if self._own is None:
                seeds = range(self.seed, self.seed + out.shape[0])
                self._own = NoiseSource(out.shape[0], out.device, seeds=seeds, stream=STEPS, level=self.level)
            self._own.fill(out)
            return
        given = generators(generator)
        device = given[0].device if given else out.device
        if len(given) == 1:
            generator = given[0]
        source = NoiseSource(out.shape[0], device, generator=generator)
        if device.type == out.device.type:
            source.fill(out)
        else:
            elsewhere = torch.empty(out.shape, dtype=out.dtype, device=device)
            source.fill(elsewhere)
            out.copy_(elsewhere)

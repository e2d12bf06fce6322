"""Sources of noise: one seed a sample, the caller's generators, or a function; never the global state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.checks import shown
from fewstep.errors import InputError
from fewstep.executor.philox import Philox

__all__ = ["Generators", "NoiseSampler", "NoiseSource", "checked_seeds", "generators", "seeded_generators"]

Generators = torch.Generator | Sequence[torch.Generator]

NoiseSampler = Callable[[Tensor, Tensor], Tensor]
"""noise_sampler(sigma, sigma_next) → unit noise shaped like the state, for the interval between these two levels (σ of
the process, 0-dimensional float64 tensors): such as k-diffusion's, or noise with its mean taken out."""

INITIAL, STEPS, INITIAL_WIDE = 0, 1, 2
"""The streams of a seed: the initial state, the noise of the steps, and the initial state of seeds from 2³² on."""


def checked_seeds(seeds: Sequence[int] | Tensor, batch: int | None = None) -> list[int]:
    """Return the seeds as a list, if they are whole numbers from 0 to below 2⁶⁴, ``batch`` of them.

    Raises:
        InputError: if there are none, not as many as samples, or one is no such number.
    """
    if isinstance(seeds, Number) or getattr(seeds, "ndim", None) == 0:
        raise InputError(f"seeds is {seeds!r}: give one for each sample, such as [{seeds!r}].")
    try:
        seeds = seeds.tolist() if isinstance(seeds, Tensor) else list(seeds)
        values = [int(seed) for seed in seeds]
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InputError(f"seeds are {seeds!r}: give whole numbers of at least 0.") from error
    if any(low != high or not 0 <= low < 2**64 for low, high in zip(values, seeds, strict=True)):
        raise InputError(f"seeds are {list(seeds)[:8]}: give whole numbers of at least 0 and below 2**64.")
    if not values or (batch is not None and len(values) != batch):
        raise InputError(f"there are {len(values)} seeds for {batch or 'no'} samples: give one seed for each sample.")
    return values


class NoiseSource:
    """Standard normal noise for a batch.

    With seeds, the noise of sample b depends on its seed alone, not on its batch. Stream 0, the initial state, of a
    seed below 2³² is ``torch.Generator().manual_seed(seed)``, and so differs between kinds of devices; that of a larger
    seed, of which this generator would see the lower 32 bits alone, is independent of it. Other streams are those of
    ``Philox``, keyed by seed, stream and level: each number depends on these, on how many draws were made before and on
    its place in the sample, and is the same on every kind of device but for rounding. With one generator the batch is
    drawn as a whole; with a list of generators, one for each sample.

    Args:
        batch: the number of samples.
        device: where the noise is drawn and used.
        seeds: one seed for each sample, or None.
        generator: one generator, or one for each sample, or None.
        stream: which independent stream of the seeds to use.
        level: the time at which a stage begins that goes on from another one, and so needs noise of its own from the
            same seeds; None for a run from the process's first time.

    Raises:
        InputError: if both or neither is given, or the number does not fit.
    """

    def __init__(
        self,
        batch: int,
        device: torch.device,
        *,
        seeds: Sequence[int] | Tensor | None = None,
        generator: Generators | None = None,
        stream: int = INITIAL,
        level: float | None = None,
    ) -> None:
        if seeds is None and generator is None:
            raise InputError("noise is needed: give either seeds (one for each sample) or a generator.")
        if seeds is not None and generator is not None:
            raise InputError("seeds and a generator are given: give one of them, not both.")
        self._philox: Philox | None = None
        self._generators: list[torch.Generator] = []
        if seeds is not None and stream == INITIAL:
            self._generators = seeded_generators(checked_seeds(seeds, batch), device)
        elif seeds is not None:
            keys = [_mixed(seed, stream, level).generate_state(2, np.uint64) for seed in checked_seeds(seeds, batch)]
            self._philox = Philox(np.stack(keys), device)
        else:
            self._generators = generators(generator)
            if not isinstance(generator, torch.Generator) and len(self._generators) != batch:
                raise InputError(
                    f"there are {len(self._generators)} generators for {batch} samples: give one for each."
                )
            elsewhere = [g.device for g in self._generators if g.device.type != device.type]
            if elsewhere:
                raise InputError(
                    f"a generator is on {elsewhere[0]}, the state on {device}: make it with "
                    f"torch.Generator(device={device.type!r})."
                )
        self._whole = isinstance(generator, torch.Generator)

    def fill(self, out: Tensor) -> None:
        """Fill ``out`` [batch, …] with standard normal noise."""
        if self._philox is not None:
            self._philox.fill(out)
        elif self._whole:
            out.normal_(generator=self._generators[0])
        else:
            for sample, generator in zip(out, self._generators, strict=True):
                sample.normal_(generator=generator)


def generators(given: Any) -> list[torch.Generator]:
    """Return one generator or several as a list.

    Raises:
        InputError: if they are no generators.
    """
    if isinstance(given, torch.Generator):
        return [given]
    listed: list[Any] = list(given) if isinstance(given, Sequence) else [given]
    if not all(isinstance(one, torch.Generator) for one in listed):
        raise InputError(
            f"generator is {shown(given)}: give torch.Generator().manual_seed(0), or a list of one for each sample."
        )
    return listed


def seeded_generators(seeds: Sequence[int], device: torch.device, stream: int = INITIAL) -> list[torch.Generator]:
    """Return torch's generator of each seed's stream: seeded with a seed below 2³² itself in stream 0, else mixed."""
    return [torch.Generator(device=device).manual_seed(_for_torch(seed, stream)) for seed in seeds]


def _for_torch(seed: int, stream: int) -> int:
    """Return what a stream's generator is seeded with: all 64 bits of the seed count, on the CPU as well."""
    if stream == INITIAL:
        if seed < 2**32:
            return seed
        stream = INITIAL_WIDE
    return int(_mixed(seed, stream).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _mixed(seed: int, stream: int, level: float | None = None) -> np.random.SeedSequence:
    """Return the entropy of a seed's stream, or of its part at a level."""
    # A level is rounded to float32, so that one that was computed in two ways has one stream.
    key = [] if level is None else [int(np.float32(level).view(np.uint32))]
    return np.random.SeedSequence([seed, stream, *key])

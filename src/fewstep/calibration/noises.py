"""The noises of a calibration."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fewstep.calibration.scratch import scratch
from fewstep.errors import InputError
from fewstep.executor import checked_seeds
from fewstep.sampling import initial_state
from fewstep.time_grid import TimeGrid

__all__ = ["HELD_OUT", "check_values", "further_noises", "noises_for", "seeds_for"]

SEEDS_FROM = 1_000_000_000
"""The first default seed: far from those that people sample with."""
HELD_OUT = 4
"""One in ``HELD_OUT`` noises is held out for the report."""


def noises_for(
    denoiser: object,
    grid: TimeGrid,
    x_T: Tensor | None,
    seeds: Sequence[int] | None,
    num: int,
    batch_size: int,
) -> Tensor:
    """Return the noises [num, …] on the host: those given, or those of the seeds.

    Raises:
        InputError: if noises and seeds are both given, or do not fit; or neither is, and the shape is not known.
    """
    if x_T is not None:
        if seeds is not None:
            raise InputError("x_T and seeds are both given: leave one of them out.")
        if not isinstance(x_T, Tensor) or not x_T.is_floating_point() or x_T.ndim < 2 or len(x_T) != num:
            found = f"{tuple(x_T.shape)} {x_T.dtype}" if isinstance(x_T, Tensor) else type(x_T).__name__
            raise InputError(f"x_T is {found}: give a floating-point tensor [num, …], here with num = {num}.")
        return x_T.detach().to(device="cpu", dtype=torch.promote_types(x_T.dtype, torch.float32))
    shape = getattr(denoiser, "shape", None)
    if shape is None:
        raise InputError(
            "the denoiser does not know the shape of a sample: give x_T [num, …], or "
            "fs.Denoiser(..., shape=(3, 32, 32))."
        )
    chosen = seeds_for(seeds, num)[:num]
    x_T = scratch((num, *shape), torch.float32)
    for start in range(0, num, batch_size):
        x_T[start : start + batch_size] = initial_state(grid, shape, chosen[start : start + batch_size])
    return x_T


def seeds_for(seeds: Sequence[int] | None, num: int) -> list[int]:
    """Return the seeds of the ``num`` noises of a calibration, the default ones for None, and then ``num`` others.

    Raises:
        InputError: if the seeds given are not ``num``, or not seeds.
    """
    own = list(range(SEEDS_FROM, SEEDS_FROM + num)) if seeds is None else checked_seeds(seeds, num)
    seen = set(own)
    fresh = [seed for seed in range(SEEDS_FROM, SEEDS_FROM + 2 * num) if seed not in seen]
    return own + fresh[:num]


def further_noises(
    grid: TimeGrid, shape: tuple[int, ...], seeds: Sequence[int] | None, num: int, number: int
) -> Tensor:
    """Return ``number`` noises [number, …] of seeds that the ``num`` noises of a calibration are not of."""
    return initial_state(grid, shape, seeds_for(seeds, num)[num : num + number])


def check_values(x_T: Tensor, history: int) -> None:
    """Refuse fits with fewer values than twice their coefficients."""
    num, values = len(x_T), x_T[0].numel()
    fitted = (num - num // HELD_OUT) * values
    wanted = 2 * (1 + history)
    if fitted < wanted:
        raise InputError(
            f"num is {num} with {values} values a sample: a row of {1 + history} coefficients needs at least {wanted} "
            f"values to be fitted; raise num to {-(-wanted * 4 // (3 * values))} or lower history."
        )

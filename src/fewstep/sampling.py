"""The public ``sample``: a model, a solver and a grid in, samples out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.checks import checked_shape, shown
from fewstep.denoiser import DataPredictor
from fewstep.errors import InputError
from fewstep.executor import Callback, Generators, NoiseSampler, NoiseSource, StateCorrection, checked_seeds, execute
from fewstep.solvers import Solver
from fewstep.solvers.base import as_solver
from fewstep.time_grid import TimeGrid, as_grid

__all__ = ["initial_state", "sample"]


def initial_state(
    grid: TimeGrid,
    shape: tuple[int, ...],
    seeds: Sequence[int] | Tensor,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return x_T = σ·ε at the grid's first time, [len(seeds), *shape]; sample i depends on seed i alone.

    ε of a seed s below 2³² is
    ``torch.randn(shape, generator=torch.Generator(device).manual_seed(s), device=device, dtype=dtype)``. Larger seeds,
    which that generator would cut to 32 bits, have separate streams.

    Raises:
        InputError: if a seed is no whole number from 0 to below 2⁶⁴.
    """
    as_grid(grid)
    chosen, sizes = checked_seeds(seeds), checked_shape(shape)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise InputError(f"dtype is {shown(dtype)}: give torch.float32 or another floating type.")
    try:
        noise = torch.empty(len(chosen), *sizes, device=device, dtype=dtype)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise InputError(f"{len(chosen)} samples of shape {sizes} on device {shown(device)}: {error}.") from error
    if noise.is_meta:
        raise InputError("device is meta, where nothing can be drawn: write cpu, or cuda on a GPU.")
    NoiseSource(len(chosen), noise.device, seeds=chosen).fill(noise)
    return noise.mul_(float(grid.sigma[0]))


def sample(
    denoiser: DataPredictor | Callable[..., Tensor],
    solver: Solver,
    grid: TimeGrid,
    x_T: Tensor | None = None,
    *,
    seeds: Sequence[int] | Tensor | None = None,
    generator: Generators | None = None,
    noise_sampler: NoiseSampler | None = None,
    cond: Any = None,
    callback: Callback | None = None,
    correct_x_t: StateCorrection | None = None,
    graph: bool = False,
) -> Tensor:
    """Return the samples at the grid's last time: ``execute(solver.plan(grid), denoiser, x_T, …)``.

    Without ``x_T`` it is drawn from the seeds (``initial_state``), for a denoiser that knows its ``shape``; with a
    ``generator`` or a ``noise_sampler`` the seeds then serve for x_T alone. The grid of a denoiser with
    ``integer_times`` is first moved to training steps, x_T with it. All other arguments are those of ``fs.execute``.

    Raises:
        InputError: as ``fs.execute`` does, and if ``x_T`` is left out without seeds or a known shape.
    """
    solver, grid = as_solver(solver), as_grid(grid)
    if getattr(denoiser, "integer_times", False):
        grid = grid.on_training_steps()
    seeds = None if seeds is None else checked_seeds(seeds)
    if x_T is None:
        shape = getattr(denoiser, "shape", None)
        if seeds is None or shape is None:
            raise InputError(
                "x_T is left out: that needs seeds and a denoiser that knows its shape; "
                "give x_T, or seeds=range(16) and fs.Denoiser(..., shape=(3, 32, 32))."
            )
        x_T = initial_state(grid, shape, seeds, device=getattr(denoiser, "device", "cpu"))
        seeds = seeds if generator is None and noise_sampler is None else None
    return execute(
        solver.plan(grid),
        denoiser,
        x_T,
        seeds=seeds,
        generator=generator,
        noise_sampler=noise_sampler,
        cond=cond,
        callback=callback,
        correct_x_t=correct_x_t,
        graph=graph,
    )

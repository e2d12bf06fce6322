"""The recommended solver and grid, which the command line, ``fs.enable`` and docs/choosing.md follow."""

from __future__ import annotations

from dataclasses import dataclass

from fewstep.processes import Process, RectifiedFlow

__all__ = ["STEPS", "Recommendation", "optimized_for", "recommended"]

STEPS = 8
"""The default number of steps."""
FEW = 10
"""Third order overshoots below this number of steps."""


@dataclass(frozen=True)
class Recommendation:
    """A solver and a grid, as words that ``fs.solvers.named`` and ``fs.grids.named`` take."""

    solver: str
    grid: str


def recommended(
    process: Process, steps: int | None = None, *, latent: bool = False, video: bool = False
) -> Recommendation:
    """Return what to sample with, by the model's process, the number of steps, and whether it works on latents.

    ====================================  ==================================  ====================================
    model                                 solver                              grid
    ====================================  ==================================  ====================================
    flow (SD3, Flux, Wan, …)              UniPC of order 2                    even in time before the shift
    latents (SD, SDXL, DiT, SVD, …)       UniPC of order 2                    optimised for the spectrum of latents
    pixels (DDPM, EDM)                    UniPC of order 3, 2 below 10 steps  optimised for the spectrum of images
    ====================================  ==================================  ====================================

    Args:
        process: the model's.
        steps: the number of intervals; None (not known yet) counts as many.
        latent: whether samples are latents of an autoencoder.
        video: whether they are of video.
    """
    if isinstance(process, RectifiedFlow):
        return Recommendation("unipc:order=2", "uniform_time")
    grid = optimized_for(latent=latent, video=video)
    few = latent or (steps is not None and steps < FEW)
    return Recommendation(f"unipc:order={2 if few else 3}", grid)


def optimized_for(*, latent: bool, video: bool = False) -> str:
    """Return the words of the grid that is optimised for the spectrum of a model's data."""
    return f"optimized:spectrum={'video' if video else 'latents'},floor=0.0045" if latent else "optimized"

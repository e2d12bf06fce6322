"""The recommended solver and grid, which the command line, ``fs.enable`` and docs/choosing.md follow."""

from __future__ import annotations

from dataclasses import dataclass

from fewstep.errors import InputError
from fewstep.processes import Process, RectifiedFlow
from fewstep.processes.spec import parse

__all__ = ["EXPERTS", "STEPS", "Recommendation", "at_experts", "bound_for", "optimized_for", "recommended"]

STEPS = 8
"""The default number of steps."""
EXPERTS = "experts"
"""The word for the boundary between a pipeline's two experts."""
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


def bound_for(grid: str, *, latent: bool) -> str:
    """Return the words of a grid, those of the published bound with p by the space that the model works in.

    "optimized:objective=bound" has p = 2 for latents and 1 for pixels (Xue et al., arXiv 2402.17376, section 4), where
    it does not say one. All else is returned as it is. Its search starts at both of that paper's grids, uniform in λ
    and in t, for either space.
    """
    name, settings = parse(grid)
    by_bound = settings.get("objective") == "bound" or "method" in settings
    if name != "optimized" or not by_bound or "error_power" in settings:
        return grid
    return f"{grid},error_power={2 if latent else 1}"


def at_experts(grid: str, boundary: float | None) -> str:
    """Return the words of a grid, "boundary=experts" with the time at which the model's experts change.

    Args:
        grid: as it is written.
        boundary: that time; None for a model of one network.

    Raises:
        InputError: if the model has no second expert.
    """
    words = f"boundary={EXPERTS}"
    if parse(grid)[1].get("boundary") != EXPERTS:
        return grid
    if boundary is None:
        raise InputError(f"grid is {grid!r}, and this model has no two experts: leave {words} out.")
    return grid.replace(words, f"boundary={boundary:g}")

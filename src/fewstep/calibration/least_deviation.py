"""The grid of the least deviation, read off the reference's trajectories without a network call."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.calibration.reference import Reference
from fewstep.time_grid import TimeGrid

__all__ = ["deviations", "least_deviation"]


def least_deviation(reference: Reference, which: Tensor, given: TimeGrid) -> TimeGrid | None:
    r"""Return the grid of the least sum of local deviations, by dynamic programming over the reference's nodes.

    Source: Chen et al., GITS (arXiv 2405.11326).

    Args:
        reference: the trajectories.
        which: the noises to look at.
        given: its ends and number of steps are kept.

    Returns:
        The grid; None if the reference has fewer nodes.
    """
    cost, steps, nodes = deviations(reference, which), given.steps, reference.grid.steps
    if nodes < steps:
        return None
    best = torch.full((nodes + 1,), float("inf"), dtype=torch.float64)
    best[0] = 0.0
    sources = []
    for _ in range(steps):
        best, source = (best[:, None] + cost).min(0)
        sources.append(source)
    chosen = [nodes]
    for source in reversed(sources):
        chosen.append(int(source[chosen[-1]]))
    times = reference.grid.times[chosen[::-1]].clone()
    times[0], times[-1] = given.times[0], given.times[-1]
    return TimeGrid(given.process, times)


def deviations(reference: Reference, which: Tensor) -> Tensor:
    """Return what an interval from each node to each later one deviates by, float64 [nodes, nodes]; ∞ to earlier ones.

    The deviation is the root mean square, over the noises, of what Euler's method makes of the reference's state and
    prediction less the reference's state at the end, in x/α.
    """
    grid = reference.grid
    alpha, sigma, steps = grid.alpha, grid.sigma, grid.steps
    squared = torch.zeros(steps + 1, steps + 1, dtype=torch.float64)
    for noise in which.split(1):  # One at a time: trajectories of large samples fill a memory.
        states = [reference.node(n, noise).flatten().double() for n in range(steps + 1)]
        for n in range(steps):
            data = reference.data(n, noise).flatten().double()
            for end in range(n + 1, steps + 1):
                ratio = sigma[end] / sigma[n]
                off = ratio * states[n] + (alpha[end] - ratio * alpha[n]) * data - states[end]
                squared[n, end] += off.square().mean() / len(which)
    later = torch.ones_like(squared).triu(1) > 0
    return torch.where(later, squared.sqrt() / alpha, torch.inf)

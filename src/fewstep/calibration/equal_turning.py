"""The grid of equal shares of a trajectory's turning, read off the reference without a network call."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.calibration.reference import Reference
from fewstep.time_grid import TimeGrid

__all__ = ["equal_turning", "turning"]

COMPONENTS = 3
"""Principal components of a trajectory whose turning counts: nearly all of its motion lies in them."""


def equal_turning(reference: Reference, which: Tensor, given: TimeGrid) -> TimeGrid | None:
    """Return the grid whose interior times part the mean turning of the trajectories into equal shares.

    λ is linear in the turning between the reference's nodes.

    Source: TORS (arXiv 2603.00763).

    Args:
        reference: the trajectories.
        which: the noises to look at.
        given: its ends and number of steps are kept.

    Returns:
        The grid; None if the reference has too few nodes of finite λ, or nothing turns.
    """
    half_logsnr = reference.grid.half_logsnr
    nodes = torch.nonzero(torch.isfinite(half_logsnr))[:, 0]
    if len(nodes) <= given.steps:
        return None
    total = torch.stack([turning(reference, noise, nodes) for noise in which.split(1)]).mean(0)
    if float(total[-1]) <= 0.0:
        return None
    shares = torch.arange(1, given.steps, dtype=torch.float64) / given.steps * total[-1]
    after = torch.searchsorted(total, shares).clamp(1, len(nodes) - 1)
    low, high = total[after - 1], total[after]
    share = (shares - low) / (high - low).clamp(min=torch.finfo(torch.float64).tiny)
    levels = half_logsnr[nodes]
    inner = torch.lerp(levels[after - 1], levels[after], share)
    times = torch.cat([given.times[:1], given.process.time(inner), given.times[-1:]])
    return TimeGrid(given.process, times) if bool((times[1:] < times[:-1]).all()) else None


def turning(reference: Reference, noise: Tensor, nodes: Tensor) -> Tensor:
    """Return the angle by which a trajectory x/α has turned up to each node, in its principal components, [nodes].

    Args:
        reference: the trajectories.
        noise: the number of one noise, [1].
        nodes: the reference's nodes of finite λ, [nodes].
    """
    alpha = reference.grid.alpha
    path = torch.stack([reference.node(n, noise).flatten().double() / float(alpha[n]) for n in nodes.tolist()])
    centred = path - path.mean(0)
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    place = vectors[:, -COMPONENTS:] * values[-COMPONENTS:].clamp(min=0.0).sqrt()
    moves = torch.diff(place, dim=0)
    moves = moves / moves.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    angles = 2.0 * torch.atan2((moves[1:] - moves[:-1]).norm(dim=1), (moves[1:] + moves[:-1]).norm(dim=1))
    zero = torch.zeros(1, dtype=torch.float64)
    return torch.cat([zero, zero, angles.cumsum(0)])

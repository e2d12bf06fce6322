"""A power law fitted robustly to the shells of a spectrum."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["capped", "fitted"]

LOW = 3.0
"""Shells below this one are held to the law."""
SLACK = 1.5
"""How many times the law's variance they may have."""
ROUNDS = 30


def fitted(variances: Tensor, radii: Tensor, counts: Tensor) -> tuple[float, float]:
    r"""Return (log a, b) of the law a·r^{−b} that fits best: least Σ counts·\|log v − log a + b·log r\|.

    Source of the iteration: reweighted least squares.
    """
    x, y = radii.log(), variances.log()
    design = torch.stack([torch.ones_like(x), -x], dim=-1)
    weight = counts
    for _ in range(ROUNDS):
        scaled = design * weight[:, None]
        found = torch.linalg.solve(scaled.mT @ design, scaled.mT @ y)
        weight = counts / (y - design @ found).abs().clamp(min=1e-3)
    return float(found[0]), float(found[1])


def capped(variances: Tensor, radii: Tensor, counts: Tensor) -> Tensor:
    """Return the variances of shells, those of the lowest ones at most 1.5 times the law that the others follow.

    Args:
        variances: [K], of each shell.
        radii: [K], in units of the lowest frequency that is not 0.
        counts: [K], the modes of each shell.
    """
    inner = radii <= float(radii.max()) / 2.0**0.5  # Corners of the frequency square follow no law.
    usable = (variances > 0) & (radii >= 1.0) & inner
    if int((usable & (radii >= LOW)).sum()) < 3:
        return variances
    level, slope = fitted(variances[usable], radii[usable], counts[usable])
    law = torch.exp(level - slope * radii.log())
    return torch.where(radii < LOW, torch.minimum(variances, SLACK * law), variances)

"""The published shortcuts at two nodes: half a slope in place of the exact integral."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.solvers.adams import Coefficients, Intervals

__all__ = ["half_slope"]


def half_slope(intervals: Intervals, other: int, scale: Tensor) -> Coefficients:
    r"""Return x_end = decay·x + α_end·[(1 − e^{−ch})·D_0 + ½·scale·(D_other − D_0)/u] + noise.

    u is the distance of the other node from the step's start in units of h: negative for a past one
    (offset −1, predictor; nodes in the order 0, −1), 1 for the new one (offset 1, corrector; order 1, 0).
    The exact integral has (ch − 1 + e^{−ch})/(ch)·… where these have ½·scale: ch (UniPC's bh1 and the
    few-step form of SA-Solver) or 1 − e^{−h} (DPM-Solver++ and UniPC's bh2).
    """
    distance = intervals.positions([other])[..., 0] + 1.0
    slope = 0.5 * scale / distance
    first = -torch.expm1(-(intervals.h + intervals.damping)) - slope
    nodes = [first, slope] if other < 0 else [slope, first]
    return Coefficients(
        state_weight=intervals.ratio * torch.exp(-intervals.damping),
        history_weights=intervals.alpha_end[..., None] * torch.stack(nodes, dim=-1),
        noise_scale=intervals.sigma_end * torch.sqrt(-torch.expm1(-2.0 * intervals.damping)),
    )

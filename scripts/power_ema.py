"""Averages of weights over a training with a power of the step as their profile, of any length after the fact.

Source: Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models (arXiv 2312.02696), section 3
and appendix C. The average after step t is θ̂_t = β_t·θ̂_{t−1} + (1 − β_t)·θ_t with β_t = (1 − 1/t)^{γ+1}: the weight
of step τ in it is proportional to τ^γ. The profile's length is its standard deviation relative to t.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["TRACKED", "PowerAverages", "combination", "exponent"]

TRACKED = (0.05, 0.10)
"""Lengths of the two averages that are tracked; others are combinations of these at several steps."""


def exponent(length: float) -> float:
    """Return γ of the profile with that relative standard deviation: length² = (γ + 1)/((γ + 2)²·(γ + 3))."""
    per_square = length**-2
    roots = np.roots([1.0, 7.0, 16.0 - per_square, 12.0 - per_square])
    return float(roots.real.max())


class PowerAverages:
    """The tracked averages of some parameters.

    Args:
        parameters: what is averaged; the averages begin at what they are.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.averages = {length: [p.detach().float().clone() for p in parameters] for length in TRACKED}

    @torch.no_grad()
    def update(self, parameters: Sequence[Tensor], step: int) -> None:
        """Take the parameters in after step ``step``, the first of which is 1."""
        for length, average in self.averages.items():
            weight = 1.0 - (1.0 - 1.0 / step) ** (exponent(length) + 1.0)
            torch._foreach_lerp_(average, [p.detach() for p in parameters], weight)

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Return the averages, for a checkpoint or a snapshot."""
        return {str(length): average for length, average in self.averages.items()}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Take over what ``state_dict`` returned."""
        for length, average in self.averages.items():
            for into, value in zip(average, state[str(length)], strict=True):
                into.copy_(value)


def combination(kept: Sequence[tuple[int, float]], length: float, step: int) -> list[float]:
    """Return the coefficients of snapshots whose sum is nearest the average of another length.

    Least squares between profiles, each a density over [0, t]: ⟨a, b⟩ = ∫ p_a·p_b.

    Args:
        kept: the step and the length of each snapshot.
        length: of the average that is wanted.
        step: the step that it ends at, one of those kept.
    """
    profiles = [(t, exponent(one)) for t, one in kept]
    target = (step, exponent(length))
    inner = np.array([[_inner(a, b) for b in profiles] for a in profiles])
    return [float(c) for c in np.linalg.lstsq(inner, np.array([_inner(a, target) for a in profiles]), rcond=None)[0]]


def _inner(a: tuple[int, float], b: tuple[int, float]) -> float:
    """Return ∫ (γ_a + 1)·τ^γ_a/t_a^{γ_a + 1} · (γ_b + 1)·τ^γ_b/t_b^{γ_b + 1} dτ over [0, min(t_a, t_b)]."""
    (t_a, power_a), (t_b, power_b) = a, b
    shorter, longer, power = (t_a, t_b, power_b) if t_a <= t_b else (t_b, t_a, power_a)
    ratio = (shorter / longer) ** (power + 1.0) / shorter
    return (power_a + 1.0) * (power_b + 1.0) / (power_a + power_b + 1.0) * ratio

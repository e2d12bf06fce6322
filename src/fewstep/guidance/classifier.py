"""Classifier guidance: along the gradient of a user's log-probability."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.checks import shown
from fewstep.denoiser import Condition, DataPredictor
from fewstep.errors import InputError
from fewstep.guidance.guided import Guided, Scale
from fewstep.guidance.rules import Rule
from fewstep.processes.base import as_float64

__all__ = ["ClassifierGuidance", "LogProbability"]

LogProbability = Callable[[Tensor, Tensor, Any], Tensor]
"""log_prob(x_t, t, cond) → log p(cond | x_t) of each sample, [batch], differentiable in x_t."""


class ClassifierGuidance(Guided):
    r"""D' = D + guidance_scale·(σ²/α)·∇_x log p(cond | x_t): guidance by a classifier of noisy samples.

    That is the score plus the scale times the gradient, which autograd takes of the user's log-probability. A scale of
    0 is the inner predictor, 1 the posterior's own score. ``log_prob`` counts as no network evaluation.

    Source: Dhariwal & Nichol, Diffusion Models Beat GANs on Image Synthesis (arXiv 2105.05233), section 4, as
    SA-Solver's public code has it (arXiv 2309.05019).

    Args:
        inner: the predictor to guide.
        guidance_scale: as of ``ClassifierFree``.
        log_prob: (x_t, t, cond) → log p(cond | x_t), [batch]; x_t is the process's state, t its time.
        interval, rule, rescale: as of ``ClassifierFree``; the pair is D' of scale 1, and D.

    Raises:
        InputError: if a setting is out of its range; when called, if ``log_prob`` does not return a number a sample, or
            one that does not depend on x_t.
    """

    _neutral = 0.0

    def __init__(
        self,
        inner: DataPredictor,
        guidance_scale: Scale,
        log_prob: LogProbability,
        *,
        interval: Sequence[float] | None = None,
        rule: Rule | None = None,
        rescale: float = 0.0,
    ) -> None:
        super().__init__(inner, guidance_scale, interval=interval, rule=rule, rescale=rescale)
        if not callable(log_prob) or isinstance(log_prob, type):
            raise InputError(f"log_prob is {shown(log_prob)}: give a function (x_t, t, cond) → log-probabilities.")
        self.log_prob = log_prob

    def _evaluations_of_both(self, t: float, conditional: bool) -> int:
        """Return how often the denoising network is evaluated."""
        return self.inner.evaluations(t, conditional)

    def _pair(self, x_t: Tensor, t: Tensor, cond: Condition) -> tuple[Tensor, Tensor]:
        """Return D' of scale 1, and D."""
        plain, t = self.inner(x_t, t, cond), as_float64(t)
        gain = self.process.sigma(t) ** 2 / self.process.alpha(t)
        return plain + gain.to(plain.device, plain.dtype) * self._gradient(x_t, t, cond), plain

    def _gradient(self, x_t: Tensor, t: Tensor, cond: Condition) -> Tensor:
        with torch.enable_grad():
            x = x_t.detach().clone().requires_grad_(True)
            made = self.log_prob(x, t, cond)
            if not isinstance(made, Tensor) or made.shape != (len(x_t),) or not made.requires_grad:
                what = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
                raise InputError(
                    f"log_prob returned {what} for {len(x_t)} samples: return a log-probability for each, [batch], "
                    "computed from x_t by autograd."
                )
            return torch.autograd.grad(made.sum(), x)[0]

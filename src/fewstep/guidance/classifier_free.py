"""Classifier-free guidance: away from the prediction without a condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.checks import flag, whole
from fewstep.denoiser import Condition, DataPredictor
from fewstep.guidance.guided import Guided, Scale
from fewstep.guidance.rules import Rule

__all__ = ["ClassifierFree"]


class ClassifierFree(Guided):
    r"""D = D_null + guidance_scale·(D_cond − D_null): classifier-free guidance in the data prediction.

    Source: Ho & Salimans, Classifier-Free Diffusion Guidance (arXiv 2207.12598). A scale of 1 is D_cond
    itself, with one call of the network; 0 is D_null. Without a condition it is the inner predictor.

    Args:
        inner: the predictor to guide.
        guidance_scale: a finite number, above 1 to strengthen the condition; a tensor [batch], one for each sample; or
            a function of σ/α.
        null_cond: the condition that means "none": a number for class labels, a tensor that expands to the
            condition's shape, or the keywords that replace the condition's.
        batched: one call on both halves (faster on accelerators), or two calls (half the memory). A tensor [1, …] is
            one for all samples. Conditions that differ in something without a batch, such as a number among the
            keywords, or that hold tensors of another length, always take two.
        interval: (low, high), guided where low < σ/α ≤ high; elsewhere D is D_cond (see ``Guided``).
        rule: how the two are combined: ``Linear`` (the formula above), ``Projected`` (APG), ``ZeroStar`` (CFG-Zero*).
        rescale: φ of ``rescaled``, from 0 (none) to 1.

    Raises:
        InputError: if the scale is not finite, or another setting is out of its range.
    """

    def __init__(
        self,
        inner: DataPredictor,
        guidance_scale: Scale,
        null_cond: Condition | int,
        *,
        batched: bool = True,
        interval: Sequence[float] | None = None,
        rule: Rule | None = None,
        rescale: float = 0.0,
    ) -> None:
        super().__init__(inner, guidance_scale, interval=interval, rule=rule, rescale=rescale)
        self.null_cond = self._checked_null(null_cond)
        self.batched = flag("batched", batched)

    def _needs_both(self, conditional: bool) -> bool:
        """Return whether there is a condition."""
        return conditional

    def _evaluations_of_both(self, t: float, conditional: bool) -> int:
        """Return how often the network is evaluated for both conditions, twice as often as for one."""
        return 2 * self.inner.evaluations(t, conditional)

    def _pair(self, x_t: Tensor, t: Tensor, cond: Condition) -> tuple[Tensor, Tensor]:
        """Return D_cond and D_null."""
        null = _like(self.null_cond, cond)
        if self.batched and _joinable(cond, null, len(x_t)):
            both = self.inner(torch.cat([x_t, x_t]), t, _joined(cond, null, len(x_t)))
            conditional, unconditional = both.chunk(2)
            return conditional, unconditional
        return self.inner(x_t, t, cond), self.inner(x_t, t, null)

    def _checked_null(self, null_cond: Any) -> Condition | int:
        """Return the null condition: a class number may be one beyond the classes, as a null class often is."""
        if null_cond is None or isinstance(null_cond, Mapping) or (isinstance(null_cond, Tensor) and null_cond.ndim):
            return null_cond
        most = None if self.num_classes is None else self.num_classes
        return whole("null_cond", null_cond, 0, most)


def _like(null: Any, cond: Any) -> Any:
    """Return ``null`` in the shape of the tensors in ``cond``; keywords that ``null`` has not keep theirs."""
    if isinstance(cond, Mapping):
        nulls = null if isinstance(null, Mapping) else dict.fromkeys(cond, null)
        return {name: _like(nulls[name], value) if name in nulls else value for name, value in cond.items()}
    if not isinstance(cond, Tensor):
        return null
    if isinstance(null, Tensor):
        return null.to(device=cond.device, dtype=cond.dtype).expand_as(cond)
    return torch.full_like(cond, null)


def _joinable(cond: Any, null: Any, batch: int) -> bool:
    """Whether tensors have one entry for all samples or one for each, and what has no batch is the same in both."""
    if isinstance(cond, Mapping):
        return all(_joinable(value, null[name], batch) for name, value in cond.items())
    if isinstance(cond, Tensor) and cond.ndim:
        return len(cond) in (1, batch)
    return cond is null or (isinstance(cond, (bool, int, float, str)) and type(cond) is type(null) and cond == null)


def _joined(cond: Any, null: Any, batch: int) -> Any:
    """Return both conditions one after the other along the batch, those for all samples repeated."""
    if isinstance(cond, Mapping):
        return {name: _joined(value, null[name], batch) for name, value in cond.items()}
    if isinstance(cond, Tensor) and cond.ndim:
        return torch.cat([half.expand(batch, *half.shape[1:]) for half in (cond, null)])
    return cond

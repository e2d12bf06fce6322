"""Denoiser → Denoiser: classifier-free guidance, static and dynamic thresholding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fewstep.checks import as_real, flag, real, shown, tensor, whole
from fewstep.denoiser import Condition, DataPredictor
from fewstep.errors import InputError
from fewstep.unwrap import layers

__all__ = ["ClassifierFree", "DynamicThreshold", "StaticThreshold", "Wrapped", "thresholds"]

STATE = "give the state, a floating-point tensor [batch, …]"


class Wrapped(DataPredictor):
    """A predictor made from another one: process, shape and classes are the inner one's."""

    def __init__(self, inner: DataPredictor) -> None:
        if not isinstance(inner, DataPredictor):
            raise InputError(
                f"{type(self).__name__} wraps an fs.Denoiser, not {type(inner).__name__}: "
                "write fs.Denoiser(network, process, prediction) first."
            )
        self.inner = inner
        self.process, self.shape, self.num_classes = inner.process, inner.shape, inner.num_classes
        self.integer_times = inner.integer_times

    @property
    def device(self) -> torch.device:
        """Where the inner network lives."""
        return self.inner.device

    @property
    def settings(self) -> str:
        """The class and its numbers as text, such as "StaticThreshold(limit=1)"."""
        numbers = [f"{name}={value:g}" for name, value in vars(self).items() if isinstance(value, float)]
        return f"{type(self).__name__}({', '.join(numbers)})"

    def __repr__(self) -> str:
        return f"{self.settings} of {self.inner!r}"


class ClassifierFree(Wrapped):
    r"""D = D_null + guidance_scale·(D_cond − D_null): classifier-free guidance in the data prediction.

    Source: Ho & Salimans, Classifier-Free Diffusion Guidance (arXiv 2207.12598). A scale of 1 is D_cond
    itself, with one call of the network; 0 is D_null. Without a condition it is the inner predictor.

    Args:
        inner: the predictor to guide.
        guidance_scale: a finite number; above 1 strengthens the condition.
        null_cond: the condition that means "none": a number for class labels, a tensor that expands to the
            condition's shape, or the keywords that replace the condition's.
        batched: one call on both halves (faster on accelerators), or two calls (half the memory). A tensor [1, …] is
            one for all samples. Conditions that differ in something without a batch, such as a number among the
            keywords, or that hold tensors of another length, always take two.

    Raises:
        InputError: if the scale is not finite.
    """

    def __init__(
        self, inner: DataPredictor, guidance_scale: float, null_cond: Condition | int, *, batched: bool = True
    ) -> None:
        super().__init__(inner)
        self.guidance_scale = real("guidance_scale", guidance_scale, hint="give a finite number, such as 2.0")
        self.null_cond = self._checked_null(null_cond)
        self.batched = flag("batched", batched)

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition = None) -> Tensor:
        """Return the guided D(x_t, t)."""
        if not isinstance(cond, (Tensor, Mapping)):
            cond = self.check_cond(cond, len(tensor("x_t", x_t, STATE)))
        if cond is None or self.guidance_scale == 1.0:
            return self.inner(x_t, t, cond)
        null = self._null(cond)
        if self.batched and _joinable(cond, null, len(x_t)):
            both = self.inner(torch.cat([x_t, x_t]), t, _joined(cond, null, len(x_t)))
            conditional, unconditional = both.chunk(2)
        else:
            conditional, unconditional = self.inner(x_t, t, cond), self.inner(x_t, t, null)
        return unconditional + self.guidance_scale * (conditional - unconditional)

    def _checked_null(self, null_cond: Any) -> Condition | int:
        """Return the null condition: a class number may be one beyond the classes, as a null class often is."""
        if null_cond is None or isinstance(null_cond, Mapping) or (isinstance(null_cond, Tensor) and null_cond.ndim):
            return null_cond
        most = None if self.num_classes is None else self.num_classes
        return whole("null_cond", null_cond, 0, most)

    def _null(self, cond: Condition) -> Condition:
        return _like(self.null_cond, cond)


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


class StaticThreshold(Wrapped):
    """D clamped to [−limit, limit], for pixels scaled to that range (Saharia et al., arXiv 2205.11487)."""

    def __init__(self, inner: DataPredictor, limit: float = 1.0) -> None:
        super().__init__(inner)
        self.limit = _above_zero("limit", limit)

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition = None) -> Tensor:
        """Return the clamped D(x_t, t)."""
        return self.inner(x_t, t, cond).clamp(-self.limit, self.limit)


class DynamicThreshold(Wrapped):
    r"""D clamped to [−s, s] and divided by s, with s the ``quantile`` of \|D\| in each sample, at least 1.

    Source: Saharia et al., Imagen (arXiv 2205.11487), section 2.3. ``limit`` bounds s from above; a limit
    of 1 is ``StaticThreshold(inner, 1.0)``.

    Raises:
        InputError: if ``quantile`` is outside (0, 1] or ``limit`` below 1.
    """

    def __init__(self, inner: DataPredictor, quantile: float = 0.995, limit: float = float("inf")) -> None:
        super().__init__(inner)
        self.quantile = _above_zero("quantile", quantile)
        self.limit = _above_zero("limit", limit)
        if self.quantile > 1 or self.limit < 1:
            raise InputError(f"quantile={quantile}, limit={limit}: the quantile is at most 1, the limit at least 1.")

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition = None) -> Tensor:
        """Return the thresholded D(x_t, t)."""
        return dynamically_thresholded(self.inner(x_t, t, cond), self.quantile, self.limit)


def thresholds(denoiser: DataPredictor) -> list[str]:
    """Return the thresholding around the network as text, such as ["StaticThreshold(limit=1)"]."""
    return [layer.settings for layer in layers(denoiser) if isinstance(layer, (StaticThreshold, DynamicThreshold))]


def dynamically_thresholded(prediction: Tensor, quantile: float | Tensor, limit: float) -> Tensor:
    """Return ``prediction`` [batch, …] clamped to [−s, s] and divided by s, one s a sample; see ``DynamicThreshold``.

    The quantile is a number or a 0-dimensional tensor; that of half precision is taken in float32.
    """
    if not prediction.numel():
        return prediction
    size = prediction.abs().to(torch.promote_types(prediction.dtype, torch.float32))
    quantile = quantile.to(size.dtype) if isinstance(quantile, Tensor) else quantile
    reach = (
        torch.quantile(size.flatten(1) if size.ndim > 1 else size[:, None], quantile, dim=1)
        .clamp(1.0, limit)
        .to(prediction.dtype)
    )
    reach = reach.view(-1, *[1] * (prediction.ndim - 1))
    return prediction.clamp(-reach, reach) / reach


def _above_zero(name: str, value: float) -> float:
    number = as_real(value)
    if number is None or not number > 0:
        raise InputError(f"{name} is {shown(value)}: give a number above 0.")
    return number

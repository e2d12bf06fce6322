"""Static and dynamic thresholding of a data prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.checks import as_real, shown
from fewstep.denoiser import Condition, DataPredictor
from fewstep.errors import InputError
from fewstep.guidance.wrapped import Wrapped
from fewstep.unwrap import layers

__all__ = ["DynamicThreshold", "StaticThreshold", "dynamically_thresholded", "thresholds"]


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

"""Images as 8-bit pixels and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fewstep.checks import as_given, shown, tensor
from fewstep.errors import InputError

__all__ = ["are_pictures", "from_uint8", "kept", "rounded", "to_uint8"]


def are_pictures(shape: Sequence[int]) -> bool:
    """Whether samples of this shape are pictures: [C, H, W] with one channel or three."""
    return len(shape) == 3 and shape[0] in (1, 3)


def kept(samples: Tensor) -> np.ndarray:
    """Return samples [n, …] as files keep them: pictures as ``to_uint8`` makes them, others as they are in float32."""
    return to_uint8(samples) if are_pictures(samples.shape[1:]) else samples.float().cpu().numpy()


def rounded(images: Tensor) -> Tensor:
    """Return images in [−1, 1], clamped, as uint8 of the same shape: ((x + 1)·127.5) rounded to the nearest."""
    return images.float().clamp(-1.0, 1.0).add(1.0).mul(127.5).round().byte()


def to_uint8(images: Tensor) -> np.ndarray:
    """Return images [n, C, H, W] in [−1, 1] as uint8 [n, H, W, C] on the host.

    Raises:
        InputError: if they are no tensor of real numbers with at least two axes.
    """
    if tensor("images", images, "give real images [n, C, H, W] in [−1, 1]").ndim < 2 or images.is_meta:
        raise InputError(f"images are {tuple(images.shape)}: give [n, C, H, W].")
    return rounded(images).movedim(1, -1).cpu().numpy()


def from_uint8(images: object) -> Tensor:
    """Return uint8 images [n, H, W, C] as float32 [n, C, H, W] in [−1, 1].

    Raises:
        InputError: for another type or shape.
    """
    try:
        pixels = as_given(images)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"images are {shown(images)}: give uint8 [n, H, W, C].") from error
    if pixels.dtype != torch.uint8 or pixels.ndim != 4:
        raise InputError(f"images are {pixels.dtype} {tuple(pixels.shape)}: give uint8 [n, H, W, C].")
    return pixels.movedim(-1, 1).float().div(127.5).sub(1.0)

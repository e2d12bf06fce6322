"""Images as 8-bit pixels and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fewstep.errors import InputError

__all__ = ["from_uint8", "rounded", "to_uint8"]


def rounded(images: Tensor) -> Tensor:
    """Return images in [−1, 1], clamped, as uint8 of the same shape: ((x + 1)·127.5) rounded to the nearest."""
    return images.float().clamp(-1.0, 1.0).add(1.0).mul(127.5).round().byte()


def to_uint8(images: Tensor) -> np.ndarray:
    """Return images [n, C, H, W] in [−1, 1] as uint8 [n, H, W, C] on the host."""
    return rounded(images).movedim(1, -1).cpu().numpy()


def from_uint8(images: object) -> Tensor:
    """Return uint8 images [n, H, W, C] as float32 [n, C, H, W] in [−1, 1].

    Raises:
        InputError: for another type or shape.
    """
    pixels = torch.as_tensor(images)
    if pixels.dtype != torch.uint8 or pixels.ndim != 4:
        raise InputError(f"images are {pixels.dtype} {tuple(pixels.shape)}: give uint8 [n, H, W, C].")
    return pixels.movedim(-1, 1).float().div(127.5).sub(1.0)

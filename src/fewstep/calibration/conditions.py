"""The conditions of a calibration: classes in turn, none, or the caller's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fewstep.denoiser import DataPredictor, over_tensors
from fewstep.errors import InputError

__all__ = ["conditions_for"]


def conditions_for(denoiser: DataPredictor | Callable[..., Tensor], cond: Any, num: int) -> Any:
    """Return the conditions of ``num`` noises, or None.

    A tensor has one entry for each noise, or one, [1, …], for all.

    Raises:
        InputError: if a class is out of range, or a tensor has another number of entries.
    """
    classes = getattr(denoiser, "num_classes", None)
    if isinstance(cond, str):
        if cond != "none":
            raise InputError(f"cond is {cond!r}: write 'none', a class number, or conditions for {num} noises.")
        return None
    if cond is None:
        return None if classes is None else torch.arange(num) % classes
    if isinstance(denoiser, DataPredictor):
        cond = denoiser.check_cond(cond, num)

    def checked(value: Tensor) -> Tensor:
        if value.ndim and value.shape[0] not in (1, num):
            raise InputError(f"cond has {value.shape[0]} entries for {num} noises: give one for each, or one for all.")
        return value

    return over_tensors(cond, checked)

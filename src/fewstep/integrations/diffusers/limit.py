"""Clipping and dynamic thresholding of x0, for networks in pixel space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import InputError
from fewstep.guidance.thresholds import dynamically_thresholded

__all__ = ["Limit", "limit_of"]

Limit = Callable[[Tensor], Callable[[Tensor], Tensor]]
"""For samples like the one given, what is done to x0; made once a run, so that nothing is placed in a step."""


def limit_of(config: Mapping[str, Any]) -> Limit | None:
    """Return what is done to x0, or None; dynamic thresholding goes before clipping, as in diffusers.

    Raises:
        InputError: if a limit is not above 0, or the ratio outside [0, 1].
    """
    if config["thresholding"]:
        ratio, limit = config["dynamic_thresholding_ratio"], config["sample_max_value"]
        if not (0 <= ratio <= 1 and limit > 0):
            raise InputError(f"dynamic_thresholding_ratio={ratio}, sample_max_value={limit}: give [0, 1] and above 0.")
        return partial(_thresholding, ratio, limit)
    if config["clip_sample"]:
        limit = config["clip_sample_range"]
        if not limit > 0:
            raise InputError(f"clip_sample_range is {limit!r}: give a number above 0.")
        return partial(_clamping, limit)
    return None


def _clamping(limit: float, sample: Tensor) -> Callable[[Tensor], Tensor]:
    return partial(torch.clamp, min=-limit, max=limit)


def _thresholding(ratio: float, limit: float, sample: Tensor) -> Callable[[Tensor], Tensor]:
    dtype = torch.promote_types(sample.dtype, torch.float32)
    quantile = torch.tensor(ratio, device=sample.device, dtype=dtype)
    return partial(_thresholded, quantile, limit)


def _thresholded(quantile: Tensor, limit: float, x0: Tensor) -> Tensor:
    return dynamically_thresholded(x0.to(quantile.dtype), quantile, limit)

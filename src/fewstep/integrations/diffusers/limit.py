"""Clipping and dynamic thresholding of x0, for networks in pixel space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import InputError
from fewstep.guidance import dynamically_thresholded

__all__ = ["limit_of"]


def limit_of(config: Mapping[str, Any]) -> Callable[[Tensor], Tensor] | None:
    """Return what is done to x0, or None; dynamic thresholding goes before clipping, as in diffusers.

    Raises:
        InputError: if a limit is not above 0, or the ratio outside [0, 1].
    """
    if config["thresholding"]:
        ratio, limit = config["dynamic_thresholding_ratio"], config["sample_max_value"]
        if not (0 <= ratio <= 1 and limit > 0):
            raise InputError(f"dynamic_thresholding_ratio={ratio}, sample_max_value={limit}: give [0, 1] and above 0.")
        return partial(dynamically_thresholded, quantile=ratio, limit=limit)
    if config["clip_sample"]:
        limit = config["clip_sample_range"]
        if not limit > 0:
            raise InputError(f"clip_sample_range is {limit!r}: give a number above 0.")
        return partial(torch.clamp, min=-limit, max=limit)
    return None

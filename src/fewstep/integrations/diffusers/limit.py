"""Clipping and dynamic thresholding of x0, for networks in pixel space."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from fewstep.errors import InputError
from fewstep.guidance import dynamically_thresholded
from fewstep.integrations.diffusers.stepper import Limit

__all__ = ["limit_of"]


def limit_of(config: Mapping[str, Any]) -> Limit | None:
    """Return what is done to x0, or None; dynamic thresholding goes before clipping, as in diffusers.

    Raises:
        InputError: if a limit is not above 0, or the ratio outside [0, 1].
    """
    if config["thresholding"]:
        ratio, limit = config["dynamic_thresholding_ratio"], config["sample_max_value"]
        if not (0 <= ratio <= 1 and limit > 0):
            raise InputError(f"dynamic_thresholding_ratio={ratio}, sample_max_value={limit}: give [0, 1] and above 0.")
        return partial(dynamically_thresholded, limit=limit)
    if config["clip_sample"]:
        if not config["clip_sample_range"] > 0:
            raise InputError(f"clip_sample_range is {config['clip_sample_range']!r}: give a number above 0.")
        return partial(_clipped, limit=config["clip_sample_range"])
    return None


def _clipped(x0: Tensor, quantile: Tensor, limit: float) -> Tensor:
    return x0.clamp(-limit, limit)

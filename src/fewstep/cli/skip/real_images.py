"""``--data``: real images for a model, with its conditions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.cli.shared.conditions import class_numbers
from fewstep.errors import InputError, reason_of
from fewstep.metrics import from_uint8
from fewstep.models.model import Model
from fewstep.skip_analysis.images import chosen_images, fitted

__all__ = ["real_samples"]


def real_samples(
    data: Path, model: Model, num: int, seed: int, class_: str, prompts: Sequence[str], batch_size: int
) -> tuple[Tensor, Any]:
    """Return ``num`` real images as samples of the model, and their conditions.

    Images take ``prompts`` in turn, and the empty one if there are none.

    Raises:
        InputError: if the images, their classes or the prompts do not fit the model.
    """
    if prompts and model.embed is None:
        raise InputError("this model takes no prompts: leave --prompts out.")
    images, labels = chosen_images(data, num, seed)
    if model.decode is None:
        samples = fitted(images, model.denoiser.shape)
    else:
        samples = _encoded(from_uint8(images), model, batch_size)
    if model.embed is None:
        return samples, _classes(model, labels, class_, num)
    given = prompts or [""]
    return samples, model.embed([given[i % len(given)] for i in range(num)])


def _encoded(images: Tensor, model: Model, batch_size: int) -> Tensor:
    if model.encode is None:
        raise InputError(
            "the model works on latents and has no encoder: give fewstep.skip_analysis.RealData latents in Python."
        )
    try:
        return torch.cat([model.encode(some).cpu() for some in images.split(batch_size)])
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        shape = tuple(images.shape[1:])
        raise InputError(f"the model's encoder does not take images {shape}: {reason_of(error, -1)}") from error


def _classes(model: Model, labels: np.ndarray | None, class_: str, num: int) -> Any:
    classes = model.denoiser.num_classes
    if class_ == "data":
        return None if labels is None or classes is None else torch.from_numpy(labels).long()
    if class_ == "each":
        raise InputError("--class is 'each', which does not apply to real images: write data, none or a class number.")
    numbers = class_numbers(class_, range(num), classes)
    return None if numbers is None else torch.tensor(numbers)

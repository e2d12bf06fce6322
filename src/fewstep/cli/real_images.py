"""``--data``: real images for a model, with its conditions and features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewstep.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from fewstep.integrations.model import Model
    from fewstep.metrics import Extractor

__all__ = ["FEATURES", "HELP", "features_for", "real_samples"]

HELP = "Real images: an .npz with 'images' (and 'labels' for their classes), or a folder of .npz or pictures."
FEATURES = "fashion-mnist, inception:FILE, dinov2:FOLDER, torchscript:FILE, or none; a model's own if there are some."


def real_samples(data: Path, model: Model, num: int, seed: int, class_: str) -> tuple[Tensor, Any]:
    """Return ``num`` real images as samples of the model, and their conditions.

    Raises:
        InputError: if the images or their classes do not fit the model.
    """
    from fewstep.tune.images import chosen_images, fitted

    if model.decode is not None or model.embed is not None:
        raise InputError(
            "the model works on latents or takes prompts: measure it in Python, with fewstep.tune.RealData of "
            "latents and their conditions."
        )
    images, labels = chosen_images(data, num, seed)
    return fitted(images, model.denoiser.shape), _classes(model, labels, class_, num)


def _classes(model: Model, labels: np.ndarray | None, class_: str, num: int) -> Any:
    import torch

    from fewstep.cli.conditions import class_numbers

    classes = model.denoiser.num_classes
    if class_ == "data":
        return None if labels is None or classes is None else torch.from_numpy(labels).long()
    if class_ == "each":
        raise InputError("--class is 'each', which real images have not: write data, none or a class number.")
    numbers = class_numbers(class_, range(num), classes)
    return None if numbers is None else torch.tensor(numbers)


def features_for(name: str | None, model: str, known: Sequence[str]) -> Extractor | None:
    """Return the features of that name; without one the model's own, None for "none" or where there are none.

    Raises:
        InputError: if there are no such features.
    """
    from fewstep import metrics

    if name == "none" or (name is None and model not in known):
        return None
    return metrics.features(model if name is None else name)

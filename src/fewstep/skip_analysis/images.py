"""Real images on disk as the samples of a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewstep.errors import InputError
from fewstep.metrics import from_uint8
from fewstep.metrics.images import image_batches, npz_array, npz_names
from fewstep.storage import check_readable

__all__ = ["chosen_images", "fitted"]

LABELS = ("labels", "train_labels")
"""The array of an npz that holds the classes of its images: the first of these names that is there."""


def chosen_images(path: Path, num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
    """Return ``num`` images drawn at random, uint8 [num, H, W, C], and their classes where an npz has them.

    Args:
        path: an npz, or a folder of npz or pictures, as ``fewstep evaluate`` takes.
        num: how many.
        seed: decides which.

    Raises:
        InputError: if the images cannot be read, or there are fewer.
    """
    if num < 2:
        raise InputError(f"{num} images: at least 2 are needed.")
    random, held = np.random.default_rng(seed), 0
    kept, ranks, places = None, np.zeros(0), np.zeros(0, np.int64)
    for batch in image_batches(path):
        kept = batch if kept is None else np.concatenate([kept, batch])
        ranks = np.concatenate([ranks, random.random(len(batch))])
        places = np.concatenate([places, np.arange(held, held + len(batch))])
        held += len(batch)
        if len(ranks) > num:
            stay = np.sort(np.argpartition(ranks, num)[:num])
            kept, ranks, places = kept[stay], ranks[stay], places[stay]
    if kept is None or len(kept) < num:
        raise InputError(f"there are {held} images in {str(path)!r}: {num} are asked for; give more, or take fewer.")
    labels = _labels(path)
    if labels is None:
        return kept, None
    if len(labels) != held:
        raise InputError(f"{str(path)!r} has {len(labels)} labels for {held} images: write one for each.")
    return kept, labels[places]


def _labels(path: Path) -> np.ndarray | None:
    """Return the classes of all images, or None where a file has none."""
    files = [path] if path.is_file() else sorted(p for p in path.glob("*.npz") if not p.name.startswith("."))
    found = []
    for file in files:
        check_readable(file, "the image")
        held = npz_names(file)
        name = next((name for name in LABELS if name in held), None)
        if name is None:
            return None
        found.append(npz_array(file, name))
    labels = np.concatenate(found) if found else None
    if labels is not None and (labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer)):
        raise InputError(
            f"the labels in {str(path)!r} are {labels.dtype} {labels.shape}: write a class number for each."
        )
    return labels


def fitted(images: np.ndarray, shape: tuple[int, ...] | None) -> Tensor:
    """Return images as float32 [n, C, H, W] in [−1, 1], of the model's ``shape``.

    Grey images of 28×28 pixels get the margin of two black pixels that models of 1×32×32 are trained with.

    Raises:
        InputError: if they are of another size.
    """
    made = from_uint8(images)
    if shape == (1, 32, 32) and made.shape[1:] == (1, 28, 28):
        made = torch.nn.functional.pad(made, (2, 2, 2, 2), value=-1.0)
    if shape is not None and tuple(made.shape[1:]) != shape:
        own, wanted = ("×".join(map(str, size)) for size in (made.shape[1:], shape))
        raise InputError(f"the images are {own} (channels, height, width), the model takes {wanted}: resize them.")
    return made

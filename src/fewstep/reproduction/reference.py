"""The check of a reference before anything is sampled: of another resolution, or in other features."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from fewstep.errors import InputError
from fewstep.metrics.images import ARRAYS, image_batches, npz_names

__all__ = ["check_reference"]

SIDES = re.compile(r"(?<![0-9])([0-9]{1,5})x([0-9]{1,5})(?![0-9])")
"""The resolution in a name, as in "cifar10-32x32.npz"."""


def check_reference(path: Path, resolution: int) -> None:
    """Refuse a reference whose images are of another size than the samples.

    Statistics do not hold the size of the images that they are of: theirs is what their name says, if it says one.

    Raises:
        InputError: with both sizes, or if the file cannot be read.
    """
    sides = _sides(path)
    if sides is not None and sides != (resolution, resolution):
        raise InputError(
            f"the reference {str(path)!r} is of {sides[0]}×{sides[1]} pixels, the samples of "
            f"{resolution}×{resolution}: give the one that the table names, with --reference if it has another name."
        )


def _sides(path: Path) -> tuple[int, int] | None:
    if path.suffix == ".npz" and not ({*ARRAYS} & npz_names(path)):
        match = SIDES.search(path.name)
        return (int(match[1]), int(match[2])) if match else None
    (first,) = islice(image_batches(path, 1), 1)
    return first.shape[1], first.shape[2]

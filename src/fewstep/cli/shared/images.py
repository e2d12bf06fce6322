"""Samples to files: pictures, or arrays of whatever else they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from fewstep.errors import InputError, MissingPackageError
from fewstep.metrics.pixels import are_pictures
from fewstep.models.model import Model
from fewstep.storage import check_folder_writable, write_arrays, write_whole

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["check_pictures", "check_writable", "name_of", "picture", "write_images"]


def check_writable(out: Path) -> Path:
    """Return ``out`` if images can be written there.

    Raises:
        InputError: if it is none of .png, .npz and a folder, its parent is missing or not writable, or a
            folder of this name has something in it.
    """
    if out.suffix not in (".png", ".npz", ""):
        raise InputError(f"--out is {str(out)!r}: write a name that ends in .png or .npz, or a folder without a dot.")
    check_folder_writable(out, "--out")
    if out.is_dir() and (out.suffix or any(out.iterdir())):
        raise InputError(f"--out is {str(out)!r}: a folder of that name exists; choose another or empty it.")
    if out.is_file() and not out.suffix:
        raise InputError(f"--out is {str(out)!r}, which is a file: end the name in .png or .npz, or choose a folder.")
    return out


def check_pictures(model: Model, instead: str) -> None:
    """Refuse to make pictures of a model's samples that are none; a decoder is tried on one sample of zeros.

    Args:
        model: what is to be sampled.
        instead: the option to write.

    Raises:
        InputError: with the shape of the samples.
    """
    shape = model.denoiser.shape
    if shape is not None and model.decode is not None:
        shape = tuple(model.images(torch.zeros(1, *shape, device=model.denoiser.device)).shape[1:])
    if shape is not None and not are_pictures(shape):
        raise InputError(
            f"the model's samples are {shape}, and no pictures (1×H×W or 3×H×W): write {instead}, which keeps their "
            "numbers."
        )


def name_of(samples: np.ndarray) -> str:
    """Return the name of samples in an npz: "images" of pictures, else "samples"."""
    return "images" if samples.dtype == np.uint8 else "samples"


def write_images(out: Path, images: np.ndarray, seeds: list[int], labels: Sequence[int] | None) -> None:
    """Write uint8 images [n, H, W, C] as one picture (.png), arrays (.npz) or a folder of PNGs named by seed.

    Samples of another kind can be written as arrays alone.
    """
    named = {} if labels is None else {"labels": np.asarray(labels)}
    if out.suffix == ".png":
        write_whole(out, lambda path: picture(_sheet(images)).save(path, format="PNG"))
    elif out.suffix == ".npz":
        write_arrays(out, {name_of(images): images, "seeds": np.asarray(seeds), **named})
    else:
        write_whole(out, lambda path: _save_folder(path, images, seeds))


def _sheet(images: np.ndarray) -> np.ndarray:
    """Return all images in rows as one array, enlarged by a whole factor to at least 512 pixels."""
    count, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(count))
    sheet = np.full((math.ceil(count / columns) * height, columns * width, channels), 255, dtype=np.uint8)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
    factor = max(1, math.ceil(512 / max(sheet.shape[:2])))
    return sheet.repeat(factor, axis=0).repeat(factor, axis=1)


def picture(image: np.ndarray) -> Image:
    """Return uint8 [H, W, C] as a picture."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackageError("pictures need pillow: pip install 'fewstep[cli]'.") from error
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image[..., :3])


def _save_folder(path: Path, images: np.ndarray, seeds: list[int]) -> None:
    path.mkdir()
    for image, seed in zip(images, seeds, strict=True):
        picture(image).save(path / f"{seed:06d}.png", format="PNG")

"""Images to files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fewstep.errors import InputError, MissingPackageError
from fewstep.storage import check_folder_writable, write_arrays, write_whole

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["check_writable", "picture", "write_images"]


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


def write_images(out: Path, images: np.ndarray, seeds: list[int], labels: Sequence[int] | None) -> None:
    """Write uint8 images [n, H, W, C] as one picture (.png), arrays (.npz) or a folder of PNGs named by seed."""
    named = {} if labels is None else {"labels": np.asarray(labels)}
    if out.suffix == ".png":
        write_whole(out, lambda path: picture(_sheet(images)).save(path, format="PNG"))
    elif out.suffix == ".npz":
        write_arrays(out, {"images": images, "seeds": np.asarray(seeds), **named})
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

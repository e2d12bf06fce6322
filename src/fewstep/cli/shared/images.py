"""Images to files: each is written whole, under a temporary name first, or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fewstep.cli.shared.leftovers import UNFINISHED
from fewstep.errors import InputError, MissingPackageError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

__all__ = ["check_writable", "picture", "to_uint8", "write_images", "write_json", "written_whole"]


def to_uint8(images: Tensor) -> np.ndarray:
    """Return images [n, C, H, W] in [−1, 1] as uint8 [n, H, W, C]."""
    scaled = images.float().clamp(-1.0, 1.0).add(1.0).mul(127.5).round()
    return scaled.byte().movedim(1, -1).cpu().numpy()


def check_writable(out: Path) -> Path:
    """Return ``out`` if images can be written there.

    Raises:
        InputError: if it is none of .png, .npz and a folder, its parent is missing or not writable, or a
            folder of this name has something in it.
    """
    if out.suffix not in (".png", ".npz", ""):
        raise InputError(f"--out is {str(out)!r}: write a name that ends in .png or .npz, or a folder without a dot.")
    parent = out.absolute().parent
    if not parent.is_dir():
        raise InputError(f"--out is {str(out)!r}: the folder {str(parent)!r} does not exist; make it first.")
    try:
        _scratch(parent).rmdir()
    except OSError as error:
        raise InputError(f"--out is {str(out)!r}: the folder {str(parent)!r} is not writable ({error}).") from error
    if out.is_dir() and (out.suffix or any(out.iterdir())):
        raise InputError(f"--out is {str(out)!r}: a folder of that name exists; choose another or empty it.")
    if out.is_file() and not out.suffix:
        raise InputError(f"--out is {str(out)!r}, which is a file: end the name in .png or .npz, or choose a folder.")
    return out


def write_images(out: Path, images: np.ndarray, seeds: list[int], labels: Sequence[int] | None) -> None:
    """Write uint8 images [n, H, W, C] as one picture (.png), arrays (.npz) or a folder of PNGs named by seed."""
    if out.suffix == ".png":
        written_whole(out, lambda path: picture(_sheet(images)).save(path, format="PNG"))
    elif out.suffix == ".npz":
        written_whole(out, lambda path: _save_arrays(path, images, seeds, labels))
    else:
        written_whole(out, lambda path: _save_folder(path, images, seeds))


def written_whole(out: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` on a temporary name beside ``out``, then rename it: ``out`` is whole or untouched.

    Raises:
        InputError: if the disk refuses.
    """
    folder = None
    try:
        folder = _scratch(out.absolute().parent)
        write(folder / out.name)
        os.replace(folder / out.name, out)
    except OSError as error:
        raise InputError(f"{str(out)!r} cannot be written: {error}.") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def write_json(path: Path, data: object) -> None:
    """Write JSON whole, or not at all."""
    text = json.dumps(data, indent=1) + "\n"
    written_whole(path, lambda part: part.write_text(text, "utf-8"))


def _scratch(parent: Path) -> Path:
    """Return a new empty folder beside what is to be written, so that a rename does not cross disks."""
    return Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=parent))


def _sheet(images: np.ndarray) -> np.ndarray:
    """Return all images in rows as one array, enlarged by a whole factor to at least 512 pixels."""
    import numpy as np

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


def _save_arrays(path: Path, images: np.ndarray, seeds: list[int], labels: Sequence[int] | None) -> None:
    import numpy as np

    arrays = {"images": images, "seeds": np.asarray(seeds)}
    if labels is not None:
        arrays["labels"] = np.asarray(labels)
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _save_folder(path: Path, images: np.ndarray, seeds: list[int]) -> None:
    path.mkdir()
    for image, seed in zip(images, seeds, strict=True):
        picture(image).save(path / f"{seed:06d}.png", format="PNG")

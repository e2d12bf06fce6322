"""Sets of images on disk, read a batch at a time: npz files and folders of npz or pictures."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fewstep.errors import InputError, MissingPackageError
from fewstep.storage import Schema, read_json

__all__ = [
    "ARRAYS",
    "DAMAGE",
    "check_picture",
    "image_batches",
    "npz_array",
    "npz_batches",
    "npz_names",
]

ARRAYS = ("images", "train_images", "arr_0")
"""The array of an npz that holds its images: the first of these names that is there."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
DAMAGE = (OSError, ValueError, KeyError, EOFError, SyntaxError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged file may raise."""


def image_batches(path: Path, batch_size: int = 256) -> Iterator[np.ndarray]:
    """Yield uint8 images [n, H, W, C] of an npz, a folder of npz shards, or a folder of pictures.

    No more than one batch is in memory. A folder that ``fewstep generate`` wrote must be complete.

    Raises:
        InputError: if the path is missing or empty, a file is damaged, or sizes differ.
    """
    if not path.exists():
        raise InputError(f"{str(path)!r} does not exist: give an .npz, or a folder of .npz or pictures.")
    if path.is_file() and path.suffix != ".npz":
        raise InputError(f"{str(path)!r} is no .npz: give an .npz, or a folder of .npz or pictures.")
    batches = npz_batches(path, batch_size) if path.is_file() else _folder_batches(path, batch_size)
    first: tuple[int, ...] | None = None
    for batch in batches:
        first = first or batch.shape[1:]
        if batch.shape[1:] != first:
            raise InputError(f"the images in {str(path)!r} are {first} and {batch.shape[1:]}: one size is needed.")
        yield batch
    if first is None:
        raise InputError(f"there are no images in {str(path)!r}.")


def npz_names(path: Path) -> set[str]:
    """Return the names of the arrays in an npz.

    Raises:
        InputError: if the file is damaged.
    """
    with _whole(path), zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


def npz_array(path: Path, name: str) -> np.ndarray:
    """Return an array of an npz, its checksum compared.

    Raises:
        InputError: if the file is damaged, or has no such array.
    """
    with _whole(path), np.load(path, allow_pickle=False) as data:
        return data[name]


def npz_batches(path: Path, batch_size: int) -> Iterator[np.ndarray]:
    """Yield the uint8 images of an npz, which is unpacked as it is read; its checksum is checked at the end.

    Raises:
        InputError: if the file is damaged, or has no uint8 images.
    """
    with _whole(path), zipfile.ZipFile(path) as archive, archive.open(_member(archive, path)) as stream:
        count, *shape = _header(stream, path)
        for start in range(0, count, batch_size):
            wanted = (min(batch_size, count - start), *shape)
            block = stream.read(int(np.prod(wanted)))
            if len(block) != int(np.prod(wanted)):
                raise EOFError("it ends too early")
            yield np.frombuffer(block, np.uint8).reshape(wanted).copy()
        stream.read(1)  # the end, where the checksum is compared


def check_picture(path: Path) -> None:
    """Read a picture's checksums, without unpacking it.

    Raises:
        InputError: if the file is damaged.
    """
    from PIL import Image

    with _whole(path), Image.open(path) as picture:
        picture.verify()


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Turn what reading a damaged file raises into an ``InputError``."""
    try:
        yield
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(
            f"{str(path)!r} is damaged ({error or type(error).__name__}): delete it, and make it again; "
            "the command that made a folder of samples makes what is missing."
        ) from error


def _member(archive: zipfile.ZipFile, path: Path) -> str:
    names = archive.namelist()
    for name in ARRAYS:
        if f"{name}.npy" in names:
            return f"{name}.npy"
    raise InputError(f"{str(path)!r} holds {', '.join(names) or 'nothing'}: an array named 'images' is needed.")


def _header(stream: Any, path: Path) -> tuple[int, ...]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype != np.uint8 or len(shape) != 4 or fortran:
        raise InputError(
            f"the images in {str(path)!r} are {dtype} {shape}: uint8 [n, H, W, C] is needed; "
            "values in [−1, 1] become ((x + 1)·127.5).round(), without NaN."
        )
    return shape


def _folder_batches(folder: Path, batch_size: int) -> Iterator[np.ndarray]:
    _check_complete(folder)
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    shards = [path for path in files if path.suffix == ".npz"]
    for shard in shards:
        yield from npz_batches(shard, batch_size)
    pictures = [] if shards else [path for path in files if path.suffix.lower() in PICTURES]
    for start in range(0, len(pictures), batch_size):
        some = [_pixels(path) for path in pictures[start : start + batch_size]]
        odd = next((i for i, image in enumerate(some) if image.shape != some[0].shape), None)
        if odd is not None:
            raise InputError(
                f"{str(pictures[start + odd])!r} is {some[odd].shape}, others {some[0].shape}: one size is needed."
            )
        yield np.stack(some)


class _Manifest(Schema):
    files: list[str]


def _check_complete(folder: Path) -> None:
    """Refuse a folder whose manifest names files that are not there."""
    if not (folder / "manifest.json").is_file():
        return
    wanted = read_json(folder / "manifest.json", _Manifest, "the manifest of fewstep generate").files
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{str(folder)!r} is not complete: {len(missing)} of {len(wanted)} files are missing ({missing[0]}, …); "
            "run the same fewstep generate again, it makes them."
        )


def _pixels(path: Path) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackageError("pictures need pillow: pip install 'fewstep[cli]'.") from error
    with _whole(path), Image.open(path) as picture:
        if picture.mode.startswith(("I", "F")):
            raise InputError(f"{str(path)!r} has more than 8 bits a channel: convert it to 8 first.")
        pixels = np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))
    return pixels[..., None] if pixels.ndim == 2 else pixels

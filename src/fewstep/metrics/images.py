"""Sets of images on disk, read a batch at a time: npz files and folders of npz or pictures."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from fewstep.errors import InputError, MissingPackageError
from fewstep.storage import DAMAGE, Schema, check_readable, read_json

__all__ = [
    "ARRAYS",
    "check_path",
    "check_picture",
    "image_batches",
    "npz_array",
    "npz_batches",
    "npz_names",
]

ARRAYS = ("images", "train_images", "arr_0")
"""The array of an npz that holds its images: the first of these names that is there."""
LOSSY = (".jpg", ".jpeg", ".webp")
PICTURES = (".png", ".bmp", ".gif", ".tif", ".tiff", *LOSSY)
LARGEST = 2**26
"""The most pixels of a picture: what claims to have more is taken for a bomb."""


def image_batches(path: Path, batch_size: int = 256) -> Iterator[np.ndarray]:
    """Yield uint8 images [n, H, W, C] of an npz, a folder of npz shards, or a folder of pictures.

    No more than one batch is in memory. A folder that ``fewstep generate`` wrote must be complete.

    Raises:
        InputError: if the path is missing or empty, a file is damaged, or sizes differ.
    """
    check_path(path)
    batches = _folder_batches(path, batch_size)
    if path.is_file():
        batches = npz_batches(path, batch_size) if path.suffix == ".npz" else _zip_batches(path, batch_size)
    first: tuple[int, ...] | None = None
    for batch in batches:
        first = first or batch.shape[1:]
        if batch.shape[1:] != first:
            raise InputError(f"the images in {str(path)!r} are {first} and {batch.shape[1:]}: one size is needed.")
        yield batch
    if first is None:
        raise InputError(f"there are no images in {str(path)!r}.")


def check_path(path: Path) -> None:
    """Refuse what can be no images: opening a pipe or a device may wait for ever.

    Raises:
        InputError: if there is nothing, or neither a folder nor an .npz nor a .zip.
    """
    try:
        there = path.exists()
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}.") from error
    if not there:
        raise InputError(f"{str(path)!r} does not exist: give an .npz, or a folder of .npz or pictures.")
    if not path.is_dir() and (not path.is_file() or path.suffix not in (".npz", ".zip")):
        raise InputError(
            f"{str(path)!r} is not an .npz: give an .npz, a .zip of pictures, or a folder of .npz or pictures."
        )


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
    if "samples.npy" in names:
        raise InputError(
            f"{str(path)!r} holds samples that are no pictures, as numbers: features are of pictures alone."
        )
    raise InputError(f"{str(path)!r} holds {', '.join(names) or 'nothing'}: an array named 'images' is needed.")


def _header(stream: Any, path: Path) -> tuple[int, ...]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype == np.uint8 and len(shape) == 4 and shape[3] not in (1, 3):
        layout = "; these look like [n, C, H, W], which .transpose(0, 2, 3, 1) turns" if shape[1] in (1, 3) else ""
        raise InputError(f"the images in {str(path)!r} are {shape}: [n, H, W, C] with C = 1 or 3 is needed{layout}.")
    if dtype != np.uint8 or len(shape) != 4 or fortran:
        raise InputError(
            f"the images in {str(path)!r} are {dtype} {shape}: uint8 [n, H, W, C] is needed; "
            "values in [−1, 1] become ((x + 1)·127.5).round(), without NaN."
        )
    return shape


def _folder_batches(folder: Path, batch_size: int) -> Iterator[np.ndarray]:
    _check_complete(folder)
    try:
        files = sorted(path for path in folder.rglob("*") if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{str(folder)!r} cannot be read: {error}.") from error
    shards = [path for path in files if path.suffix == ".npz"]
    pictures = [path for path in files if path.suffix.lower() in PICTURES]
    if shards and pictures:
        raise InputError(
            f"{str(folder)!r} has {len(shards)} .npz and {len(pictures)} pictures ({pictures[0].name}, …): which of "
            "them are the images? Keep one kind in the folder."
        )
    for path in (*shards, *pictures):
        check_readable(path, "the image")
    for shard in shards:
        yield from npz_batches(shard, batch_size)
    _warn_of_losses([path.name for path in pictures])
    yield from _stacked([(str(path), path) for path in pictures], batch_size)


def _zip_batches(path: Path, batch_size: int) -> Iterator[np.ndarray]:
    """Yield the pictures of a zip, such as EDM's data sets, in the order of their names."""
    with _whole(path), zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if Path(name).suffix.lower() in PICTURES)
        _warn_of_losses(names)
        yield from _stacked([(f"{path}:{name}", BytesIO(archive.read(name))) for name in names], batch_size)


def _stacked(pictures: list[tuple[str, Any]], batch_size: int) -> Iterator[np.ndarray]:
    """Yield batches of pictures of one size; each is a name and what is opened."""
    for start in range(0, len(pictures), batch_size):
        some = [_pixels(name, source) for name, source in pictures[start : start + batch_size]]
        odd = next((i for i, image in enumerate(some) if image.shape != some[0].shape), None)
        if odd is not None:
            raise InputError(
                f"{pictures[start + odd][0]!r} is {some[odd].shape}, others {some[0].shape}: one size is needed."
            )
        yield np.stack(some)


def _warn_of_losses(names: list[str]) -> None:
    lossy = [name for name in names if Path(name).suffix.lower() in LOSSY]
    if lossy:
        warnings.warn(
            f"{len(lossy)} of {len(names)} pictures may be lossily compressed ({Path(lossy[0]).name}, …), which "
            "shifts distances of features: PNG keeps pixels as they are.",
            UserWarning,
            stacklevel=3,
        )


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
            "run the same fewstep generate again to make them."
        )


def _pixels(name: str, source: Any) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackageError("pictures need pillow: pip install 'fewstep[cli]'.") from error
    with _whole(Path(name)), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            opened = Image.open(source)
        except Image.DecompressionBombError as error:
            raise InputError(f"{name!r} claims an enormous size ({error}): leave it out.") from error
    with _whole(Path(name)), opened as picture:
        if picture.width * picture.height > LARGEST:
            raise InputError(
                f"{name!r} claims {picture.width}×{picture.height} pixels, more than {LARGEST}: leave it out."
            )
        if (frames := getattr(picture, "n_frames", 1)) > 1:
            raise InputError(f"{name!r} has {frames} frames: give one picture a file.")
        if picture.mode.startswith(("I", "F")):
            raise InputError(f"{name!r} has more than 8 bits a channel: convert it to 8 first.")
        pixels = np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))
    return pixels[..., None] if pixels.ndim == 2 else pixels

"""Samples in pieces that are whole or absent: npz shards or PNGs, written a batch at a time."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np

from fewstep.cli.shared.images import name_of, picture
from fewstep.errors import InputError
from fewstep.metrics.images import check_picture, npz_array, npz_batches, npz_names
from fewstep.storage import UNFINISHED

__all__ = ["Shard", "ShardWriter", "shards_of"]

CHECKED = 64
"""Images of a shard that are in memory while it is checked."""


@dataclass(frozen=True)
class Shard:
    """A run of seeds and the files that hold their samples."""

    seeds: Sequence[int]
    files: tuple[Path, ...]

    def is_there(self) -> bool:
        """Whether all files are there."""
        return all(file.is_file() for file in self.files)

    def check(self, labels: Sequence[int] | None, size: tuple[int, ...] | None) -> None:
        """Read the files to the end, and compare their checksums, seeds and labels, and the size of their images.

        Args:
            labels: the class of each sample, or None.
            size: [H, W, C] of an image, or the shape of a sample of another kind; None where it is not known.

        Raises:
            InputError: if one is damaged, or holds other samples.
        """
        wanted = {"seeds": self.seeds, **({} if labels is None else {"labels": labels})}
        for file in self.files:
            if file.suffix == ".png":
                check_picture(file)
                continue
            names = npz_names(file)
            name = "samples" if "samples" in names else "images"
            parts = iter([npz_array(file, name)]) if name == "samples" else npz_batches(file, CHECKED)
            sizes = [part.shape for part in parts]
            same = sum(shape[0] for shape in sizes) == len(self.seeds) and names == {name, *wanted}
            same = same and all(size is None or shape[1:] == size for shape in sizes)
            if not same or any(npz_array(file, name).tolist() != list(values) for name, values in wanted.items()):
                raise InputError(f"{str(file)!r} is damaged or holds other samples: delete it and run again.")


def shards_of(folder: Path, seeds: Sequence[int], size: int, pictures: bool) -> list[Shard]:
    """Return the shards of a set: they depend on the seeds and ``size`` alone."""
    shards = []
    for index, start in enumerate(range(0, len(seeds), size)):
        some = seeds[start : start + size]
        names = [f"{seed:08d}.png" for seed in some] if pictures else [f"samples-{index:05d}.npz"]
        shards.append(Shard(some, tuple(folder / name for name in names)))
    return shards


class ShardWriter:
    """A writer of one shard: called with batches in order, it renames the file once all are there.

    Nothing of the time of day is written: the same samples give the same file, bit for bit.

    Args:
        shard: what to write.
        labels: the class of each sample, or None.
    """

    def __init__(self, shard: Shard, labels: Sequence[int] | None) -> None:
        self.shard, self.labels, self.done, self.failed = shard, labels, 0, False
        self._archive: zipfile.ZipFile | None = None
        self._images: IO[bytes] | None = None

    def __call__(self, images: np.ndarray) -> None:
        """Add uint8 images [n, H, W, C], or samples of another kind in float32.

        After a batch that could not be written, no other one is.
        """
        if self.failed:
            return
        self.failed = True
        if self.shard.files[0].suffix == ".npz":
            self._to_npz(images)
        else:
            self._to_pictures(images)
        self.done += len(images)
        self.failed = False

    def _to_pictures(self, images: np.ndarray) -> None:
        for file, image in zip(self.shard.files[self.done :], images, strict=False):
            buffer = BytesIO()
            picture(image).save(buffer, format="PNG")
            part = _part(file)
            part.write_bytes(buffer.getvalue())
            os.replace(part, file)

    def _to_npz(self, images: np.ndarray) -> None:
        part, total = _part(self.shard.files[0]), len(self.shard.seeds)
        if self._archive is None or self._images is None:
            self._archive = zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
            self._images = self._archive.open(f"{name_of(images)}.npy", "w", force_zip64=True)
            header = {"descr": images.dtype.str, "fortran_order": False, "shape": (total, *images.shape[1:])}
            np.lib.format.write_array_header_1_0(self._images, header)
        self._images.write(np.ascontiguousarray(images).tobytes())
        if self.done + len(images) < total:
            return
        self._images.close()
        arrays = {"seeds": self.shard.seeds, **({} if self.labels is None else {"labels": self.labels})}
        for name, values in arrays.items():
            with self._archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, np.asarray(values, dtype=np.int64), allow_pickle=False)
        self._archive.close()
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, self.shard.files[0])

    def abandon(self) -> None:
        """Remove what is half-written; whole files stay."""
        for stream in (self._images, self._archive):
            try:
                if stream is not None:
                    stream.close()
            except (OSError, ValueError):
                pass
        for file in self.shard.files:
            _part(file).unlink(missing_ok=True)


def _part(file: Path) -> Path:
    return file.with_name(f"{UNFINISHED}{file.name}.{os.getpid()}")

"""Samples in pieces that are whole or absent: npz shards or PNGs, written a batch at a time."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from scipy.io import wavfile

from fewstep.cli.shared.images import encoded
from fewstep.errors import InputError
from fewstep.metrics.images import check_picture, npz_array, npz_batches, npz_names
from fewstep.storage import DAMAGE, UNFINISHED

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
            if file.suffix in (".png", ".gif"):
                check_picture(file)
                continue
            if file.suffix == ".wav":
                _check_sound(file)
                continue
            names = npz_names(file)
            name = next((one for one in ("samples", "videos", "audio") if one in names), "images")
            parts = npz_batches(file, CHECKED) if name == "images" else iter([npz_array(file, name)])
            sizes = [part.shape for part in parts]
            same = sum(shape[0] for shape in sizes) == len(self.seeds) and names - {"rate"} == {name, *wanted}
            same = same and all(size is None or shape[1:] == size for shape in sizes)
            if not same or any(npz_array(file, name).tolist() != list(values) for name, values in wanted.items()):
                raise InputError(f"{str(file)!r} is damaged or holds other samples: delete it and run again.")


def shards_of(folder: Path, seeds: Sequence[int], size: int, format_: str) -> list[Shard]:
    """Return the shards of a set: they depend on the seeds and ``size`` alone."""
    shards = []
    for index, start in enumerate(range(0, len(seeds), size)):
        some = seeds[start : start + size]
        names = [f"samples-{index:05d}.npz"] if format_ == "npz" else [f"{seed:08d}.{format_}" for seed in some]
        shards.append(Shard(some, tuple(folder / name for name in names)))
    return shards


class ShardWriter:
    """A writer of one shard: called with batches in order, it renames the file once all are there.

    Nothing of the time of day is written: the same samples give the same file, bit for bit.

    Args:
        shard: what to write.
        labels: the class of each sample, or None.
        rate: frames or values of audio a second.
    """

    def __init__(self, shard: Shard, labels: Sequence[int] | None, rate: float | None = None) -> None:
        self.shard, self.labels, self.rate, self.done, self.failed = shard, labels, rate, 0, False
        self._archive: zipfile.ZipFile | None = None
        self._images: IO[bytes] | None = None

    def __call__(self, name: str, images: np.ndarray) -> None:
        """Add samples under the name and in the form of ``Model.kept``.

        After a batch that could not be written, no other one is.
        """
        if self.failed:
            return
        self.failed = True
        if self.shard.files[0].suffix == ".npz":
            self._to_npz(name, images)
        else:
            self._to_files(name, images)
        self.done += len(images)
        self.failed = False

    def _to_files(self, name: str, images: np.ndarray) -> None:
        for file, image in zip(self.shard.files[self.done :], images, strict=False):
            part = _part(file)
            part.write_bytes(encoded(name, image, self.rate))
            os.replace(part, file)

    def _to_npz(self, name: str, images: np.ndarray) -> None:
        part, total = _part(self.shard.files[0]), len(self.shard.seeds)
        if self._archive is None or self._images is None:
            self._archive = zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
            self._images = self._archive.open(f"{name}.npy", "w", force_zip64=True)
            header = {"descr": images.dtype.str, "fortran_order": False, "shape": (total, *images.shape[1:])}
            np.lib.format.write_array_header_1_0(self._images, header)
        self._images.write(np.ascontiguousarray(images).tobytes())
        if self.done + len(images) < total:
            return
        self._images.close()
        numbers = {"seeds": self.shard.seeds, **({} if self.labels is None else {"labels": self.labels})}
        arrays = {key: np.asarray(values, dtype=np.int64) for key, values in numbers.items()}
        if self.rate is not None and name in ("videos", "audio"):
            arrays["rate"] = np.asarray(self.rate)
        for key, values in arrays.items():
            with self._archive.open(f"{key}.npy", "w") as stream:
                np.lib.format.write_array(stream, values, allow_pickle=False)
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


def _check_sound(path: Path) -> None:
    """Read a sound to its end.

    Raises:
        InputError: if the file is damaged.
    """
    try:
        rate, _ = wavfile.read(path)
    except (*DAMAGE, UnboundLocalError) as error:  # scipy's rate is unset where a file has no format.
        raise InputError(f"{str(path)!r} is damaged ({error}): delete it and run again.") from error
    if not rate:
        raise InputError(f"{str(path)!r} is damaged: delete it and run again.")


def _part(file: Path) -> Path:
    return file.with_name(f"{UNFINISHED}{file.name}.{os.getpid()}")

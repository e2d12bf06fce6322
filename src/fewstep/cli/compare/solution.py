"""The reference solution of a comparison's seeds, made once and kept on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from fewstep.cli.compare.cells import Sampler
from fewstep.cli.compare.draws import Draws, Progress
from fewstep.cli.shared.workers import Workers
from fewstep.errors import InputError
from fewstep.storage import DAMAGE, write_whole

__all__ = ["Solution"]

PIECE = "exact-"
"""Prefix of the batches' files, which are joined once all are there."""


@dataclass(frozen=True)
class Solution:
    """The images [n, C, H, W] of every seed, by a sampler of many steps, in ``exact.npy``.

    Until all are there each batch has a separate file, so that a stopped run is resumed.

    Attributes:
        folder: of the comparison.
        sampler: what makes them.
    """

    folder: Path
    sampler: Sampler

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return self.folder / "exact.npy"

    def missing(self, draws: Draws) -> list[int]:
        """Return the batches that are still to be made: those of a run that was stopped are kept."""
        return [batch for batch in range(draws.batches) if not self._kept(draws, batch)]

    def make(self, draws: Draws, batches: Sequence[int], worker: Workers, progress: Progress) -> None:
        """Make these batches, this process's share, and join all once every process has."""
        for start, images in draws.drawn(self.sampler, progress, batches):
            _write(self._piece(start), len(images), iter([images.float().numpy()]))
        worker.wait()
        if worker.index == 0:
            pieces = (np.load(self._piece(draws.part(batch).start)) for batch in range(draws.batches))
            _write(self.path, len(draws.seeds), pieces)
            self.clear()
        worker.wait()

    def clear(self) -> None:
        """Remove the batches' files, if they were joined."""
        if self.path.is_file():
            for path in self.folder.glob(f"{PIECE}*.npy"):
                path.unlink()

    def _piece(self, start: int) -> Path:
        return self.folder / f"{PIECE}{start:08d}.npy"

    def _kept(self, draws: Draws, batch: int) -> bool:
        """Whether a batch is there, whole: one of another batch size is not."""
        part = draws.part(batch)
        try:
            return len(np.load(self._piece(part.start), mmap_mode="r", allow_pickle=False)) == part.stop - part.start
        except DAMAGE:
            return False

    def read(self, count: int) -> np.ndarray:
        """Return it, as a view of the file.

        Raises:
            InputError: if the file is damaged, or holds other than ``count`` images.
        """
        try:
            solution = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except DAMAGE as error:
            raise InputError(
                f"{str(self.path)!r} is damaged ({error}): delete it and run the same command again."
            ) from error
        whole = isinstance(solution, np.ndarray) and solution.ndim > 1 and solution.dtype == np.dtype("<f4")
        if not whole or len(solution) != count:
            raise InputError(f"{str(self.path)!r} is damaged: delete it and run the same command again.")
        return solution


def _write(path: Path, count: int, batches: Iterator[np.ndarray]) -> None:
    """Write ``count`` float32 images, which come a batch at a time."""

    def write(part: Path) -> None:
        first = next(batches)
        with part.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (count, *first.shape[1:])}
            np.lib.format.write_array_header_1_0(file, header)
            for batch in chain([first], batches):
                file.write(np.ascontiguousarray(batch, "<f4").tobytes())

    write_whole(path, write)

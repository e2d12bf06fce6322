"""The reference solution of a comparison's seeds, made once and kept on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from fewstep.cli.leftovers import UNFINISHED
from fewstep.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from fewstep.cli.cells import Sampler
    from fewstep.cli.draws import Draws, Told
    from fewstep.cli.workers import Workers

__all__ = ["Solution"]

PART = f"{UNFINISHED}exact-"
"""How the names of the processes' shares begin, before they are joined."""


@dataclass(frozen=True)
class Solution:
    """The images [n, C, H, W] of every seed, by a sampler of many steps, in ``exact.npy``.

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

    def make(self, draws: Draws, worker: Workers, told: Told) -> None:
        """Make it, each process its share of the batches."""
        share = range(draws.batches * worker.index // worker.count, draws.batches * (worker.index + 1) // worker.count)
        count = min(share.stop * draws.batch_size, len(draws.seeds)) - share.start * draws.batch_size
        drawn = (images.float().numpy() for _, images in draws.drawn(self.sampler, told, share))
        if share:
            _write(self.folder / f"{PART}{worker.index}.npy", count, drawn)
        worker.wait()
        if worker.index == 0:
            self._join(worker.count)
        worker.wait()

    def _join(self, count: int) -> None:
        import numpy as np

        paths = [self.folder / f"{PART}{index}.npy" for index in range(count)]
        parts = [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths if path.is_file()]
        _write(self.path, sum(map(len, parts)), iter(parts))
        for path in paths:
            path.unlink(missing_ok=True)

    def read(self, count: int) -> np.ndarray:
        """Return it, as a view of the file.

        Raises:
            InputError: if the file is damaged, or holds other than ``count`` images.
        """
        import numpy as np

        try:
            solution = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"{str(self.path)!r} is damaged ({error}): delete it and run the same command again."
            ) from error
        if len(solution) != count:
            raise InputError(f"{str(self.path)!r} is damaged: delete it and run the same command again.")
        return solution


def _write(path: Path, count: int, batches: Iterator[np.ndarray]) -> None:
    """Write ``count`` float32 images, which come a batch at a time."""
    import numpy as np

    from fewstep.cli.images import written_whole

    def write(part: Path) -> None:
        first = next(batches)
        with part.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (count, *first.shape[1:])}
            np.lib.format.write_array_header_1_0(file, header)
            for batch in chain([first], batches):
                file.write(np.ascontiguousarray(batch, "<f4").tobytes())

    written_whole(path, write)

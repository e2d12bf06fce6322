"""The reference solution of a comparison's seeds, made once and kept on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fewstep.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from fewstep.cli.cells import Sampler
    from fewstep.cli.draws import Draws, Told
    from fewstep.cli.workers import Workers

__all__ = ["Solution"]

PART = ".fewstep-exact-"
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
        images = [images.float().numpy() for _, images in draws.drawn(self.sampler, told, share)]
        part = self.folder / f"{PART}{worker.index}.npy"
        part.unlink(missing_ok=True)  # of a run that was killed
        if images:
            _write(part, images)
        worker.wait()
        if worker.index == 0:
            self._join(worker.count)
        worker.wait()

    def _join(self, count: int) -> None:
        import numpy as np

        parts = [self.folder / f"{PART}{index}.npy" for index in range(count)]
        _write(self.path, [np.load(part, allow_pickle=False) for part in parts if part.is_file()])
        for part in self.folder.glob(f"{PART}*.npy"):
            part.unlink()

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


def _write(path: Path, images: list[np.ndarray]) -> None:
    import numpy as np

    from fewstep.cli.images import written_whole

    written_whole(path, lambda part: np.save(part, np.concatenate(images), allow_pickle=False))

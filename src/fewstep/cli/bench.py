"""The cells of a comparison, measured one by one and kept on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewstep.cli.openings import Openings
from fewstep.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from fewstep.cli.cells import Cell, Sampler
    from fewstep.integrations.model import Model
    from fewstep.metrics import Extractor
    from fewstep.metrics.summary import Summary

__all__ = ["KEPT", "Bench", "keep_json"]

KEPT = 8
"""How many images of each cell are kept, the first ones."""


@dataclass(frozen=True)
class Bench:
    """What all cells have in common.

    Attributes:
        folder: where figures, first images and the reference solution are kept.
        model: what is sampled.
        seeds: of every cell.
        conditions: a class for each seed, or None.
        batch_size: samples at a time.
        extractor: the features of fd, or None.
        against: the reference of fd, or None.
        metrics: some of "error" and "fd".
        exact: the sampler of the reference solution.
    """

    folder: Path
    model: Model
    seeds: list[int]
    conditions: Any
    batch_size: int
    extractor: Extractor | None
    against: Summary | None
    metrics: list[str]
    exact: Sampler
    openings: Openings = field(default_factory=Openings, init=False)

    def rows(self, cells: list[Cell]) -> list[dict[str, Any]]:
        """Return what was measured in each cell; those that were measured before are read.

        Cells of one grid are measured one after the other: they have calls in common.
        """
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("comparing", total=len(cells))
            for cell in sorted(cells, key=lambda cell: (cell.steps, cell.grid)):
                if not (self._figures(cell).is_file() and self._pictures(cell).is_file()):
                    self._measure(cell)
                progress.advance(task)
        return [_read(self._figures(cell)) for cell in cells]

    def pictures(self, cell: Cell) -> np.ndarray:
        """Return the first images of a cell, uint8 [n, H, W, C].

        Raises:
            InputError: if their file is damaged.
        """
        from fewstep.metrics.images import npz_batches

        return next(npz_batches(self._pictures(cell), KEPT))

    def solution_pictures(self) -> np.ndarray | None:
        """Return the first images of the reference solution, uint8 [n, H, W, C]; None where none was needed."""
        import torch

        from fewstep.cli.images import to_uint8

        if not (self.folder / "exact.npy").is_file():
            return None
        return to_uint8(torch.from_numpy(self._solution()[:KEPT].copy()))

    def _figures(self, cell: Cell) -> Path:
        return self.folder / f"{cell.name}.json"

    def _pictures(self, cell: Cell) -> Path:
        return self.folder / f"{cell.name}.npz"

    def _measure(self, cell: Cell) -> None:
        import numpy as np
        import torch

        from fewstep.cli.images import to_uint8, write_images
        from fewstep.cli.manifest import versions
        from fewstep.metrics import Moments, frechet_distance, from_uint8
        from fewstep.metrics.error import rmse_interval, squared_errors

        solution = self._solution() if "error" in self.metrics and not cell.sampler.stochastic else None
        moments, errors, first = Moments(self.extractor.tag if self.extractor else ""), [], np.zeros((0, 1, 1, 1))
        for start, images in self._drawn(cell.sampler):
            pixels = to_uint8(images)
            if len(first) < KEPT:
                first = np.concatenate([first, pixels])[:KEPT] if len(first) else pixels[:KEPT]
            if solution is not None:
                errors.append(squared_errors(images, torch.from_numpy(solution[start : start + len(images)].copy())))
            if self.extractor is not None:
                moments.update(self.extractor(from_uint8(pixels)))
        found: dict[str, Any] = {"nfe": cell.sampler.nfe}
        if errors:
            found["error"], found["error_low"], found["error_high"] = rmse_interval(torch.cat(errors))
        if self.against is not None:
            found["fd"] = frechet_distance(moments, self.against.moments)
        day = datetime.now(timezone.utc).date().isoformat()
        write_images(self._pictures(cell), first, self.seeds[: len(first)], None)
        keep_json(
            self._figures(cell), {**found, "batch_size": self.batch_size, "measured": day, "versions": versions()}
        )

    def _drawn(self, sampler: Sampler) -> Iterator[tuple[int, Tensor]]:
        for start in range(0, len(self.seeds), self.batch_size):
            part = slice(start, start + self.batch_size)
            model = replace(self.model, denoiser=self.openings.on(self.model.denoiser))
            yield start, sampler.draw(model, self.seeds[part], self.conditions and self.conditions[part]).cpu()

    def _solution(self) -> np.ndarray:
        """Return the reference solution of every seed, made once and kept on disk, [n, C, H, W]."""
        import numpy as np

        from fewstep.cli.images import written_whole

        path = self.folder / "exact.npy"
        if not path.is_file():
            solution = np.concatenate([images.float().numpy() for _, images in self._drawn(self.exact)])
            written_whole(path, lambda part: np.save(part, solution, allow_pickle=False))
        try:
            solution = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"{str(path)!r} is damaged ({error}): delete it and run the same command again."
            ) from error
        if len(solution) != len(self.seeds):
            raise InputError(f"{str(path)!r} is damaged: delete it and run the same command again.")
        return solution


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{str(path)!r} is damaged ({error}): delete it and run the same command again.") from error


def keep_json(path: Path, data: object) -> None:
    """Write JSON whole, or not at all."""
    from fewstep.cli.images import written_whole

    def write(part: Path) -> None:
        part.write_text(json.dumps(data, indent=1) + "\n", "utf-8")

    written_whole(path, write)

"""The cells of a comparison, measured one by one and kept on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
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
Told = Callable[[int], None]
"""Told of network calls that were made, those of each sample counted."""


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
        from fewstep.cli.progress import bar

        ordered = {cell.name: cell for cell in sorted(cells, key=lambda cell: (cell.steps, cell.grid))}.values()
        missing = [cell for cell in ordered if not (self._figures(cell).is_file() and self._pictures(cell).is_file())]
        solved = not any(self._has_error(cell) for cell in missing) or self._path_of_solution.is_file()
        samplers = [cell.sampler for cell in missing] + [self.exact] * (not solved)
        with bar() as progress:
            task = progress.add_task("", total=sum(sampler.nfe for sampler in samplers) * len(self.seeds))
            for number, cell in enumerate(missing, start=1):
                name = f"cell {number} of {len(missing)}: {cell.solver}, {cell.grid}, {cell.steps} steps"
                progress.update(task, description=name)
                self._measure(cell, partial(progress.advance, task))
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

        if not self._path_of_solution.is_file():
            return None
        return to_uint8(torch.from_numpy(self._solution()[:KEPT].copy()))

    @property
    def _path_of_solution(self) -> Path:
        return self.folder / "exact.npy"

    def _has_error(self, cell: Cell) -> bool:
        return "error" in self.metrics and not cell.sampler.stochastic

    def _figures(self, cell: Cell) -> Path:
        return self.folder / f"{cell.name}.json"

    def _pictures(self, cell: Cell) -> Path:
        return self.folder / f"{cell.name}.npz"

    def _measure(self, cell: Cell, told: Told) -> None:
        import numpy as np
        import torch

        from fewstep.cli.images import to_uint8, write_images
        from fewstep.cli.manifest import versions
        from fewstep.metrics import Moments, frechet_distance, from_uint8
        from fewstep.metrics.error import rmse_interval, squared_errors

        solution = self._solution(told) if self._has_error(cell) else None
        moments, errors, first = Moments(self.extractor.tag if self.extractor else ""), [], np.zeros((0, 1, 1, 1))
        for start, images in self._drawn(cell.sampler, told):
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

    def _drawn(self, sampler: Sampler, told: Told) -> Iterator[tuple[int, Tensor]]:
        for start in range(0, len(self.seeds), self.batch_size):
            part = slice(start, start + self.batch_size)
            model = replace(self.model, denoiser=self.openings.on(self.model.denoiser))
            yield start, sampler.draw(model, self.seeds[part], self.conditions and self.conditions[part]).cpu()
            told(sampler.nfe * len(self.seeds[part]))

    def _solution(self, told: Told = lambda calls: None) -> np.ndarray:
        """Return the reference solution of every seed, made once and kept on disk, [n, C, H, W]."""
        import numpy as np

        from fewstep.cli.images import written_whole

        path = self._path_of_solution
        if not path.is_file():
            solution = np.concatenate([images.float().numpy() for _, images in self._drawn(self.exact, told)])
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

"""The cells of a comparison, measured one by one and kept on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import model_validator

from fewstep.cli.compare.cells import Cell
from fewstep.cli.compare.draws import Draws, Progress
from fewstep.cli.compare.population import Population
from fewstep.cli.compare.solution import Solution
from fewstep.cli.shared.images import write_samples
from fewstep.cli.shared.manifest import versions
from fewstep.cli.shared.profiles import tuned_by
from fewstep.cli.shared.progress import bar
from fewstep.cli.shared.workers import Workers
from fewstep.errors import InputError, NonFiniteStateError
from fewstep.metrics import Extractor, Moments, frechet_distance, from_uint8
from fewstep.metrics.error import rmse_interval, squared_errors
from fewstep.metrics.images import npz_array, npz_batches, npz_names
from fewstep.metrics.pixels import kept
from fewstep.metrics.statistics import FeatureStatistics
from fewstep.storage import Plain, Schema, read_json, write_json

__all__ = ["KEPT", "Bench"]

KEPT = 8
"""Number of images kept of each cell: the first ones."""


@dataclass(frozen=True)
class Bench:
    """What all cells have in common.

    Attributes:
        folder: where figures and first images are kept.
        draws: what every cell is drawn from.
        extractor: the features of fd, or None.
        against: the reference of fd, or None.
        solution: the reference of error, or None.
        population: the reference of fd_solution, or None.
    """

    folder: Path
    draws: Draws
    extractor: Extractor | None
    against: FeatureStatistics | None
    solution: Solution | None
    population: Population | None = None

    def measure(self, cells: Sequence[Cell], worker: Workers) -> None:
        """Measure the cells that were not measured before, each process its share.

        Cells of one grid are measured one after the other: they have calls in common.

        Raises:
            InputError: if cells are not finite, which it names, once all others are measured.
        """
        ordered = {cell.name: cell for cell in sorted(cells, key=lambda cell: (cell.steps, cell.grid))}.values()
        missing = [cell for cell in ordered if not self._is_there(cell)]
        share = _share(missing, worker)
        unsolved = [
            (solution, draws, solution.missing(draws)[worker.index :: worker.count])
            for solution, draws in self._to_be_solved(ordered, missing)
        ]
        calls = self._calls(share, unsolved)
        worker.wait()  # until every process has seen what is missing
        if worker.index == 0:
            for solution, _ in self._solutions():
                solution.clear()
        with bar(silent=worker.index > 0) as display:
            task = display.add_task("the reference solution", total=calls)
            progress = partial(display.advance, task)
            for solution, draws, batches in unsolved:
                solution.make(draws, batches, worker, progress)
            moments = self.population.moments() if self.population is not None and share else None
            for number, cell in enumerate(share, start=1):
                name = f"cell {number} of {len(share)}: {cell.solver}, {cell.grid}, {cell.steps} steps"
                display.update(task, description=name)
                scaling = nullcontext() if cell.skip is None else tuned_by(cell.skip, self.draws.model.denoiser)
                with scaling, suppress(NonFiniteStateError):  # The others are kept; such cells are named at the end.
                    self._measure(cell, moments, progress)
        worker.wait()
        broken = [cell for cell in ordered if not self._is_there(cell)]
        if broken:
            names = "; ".join(f"{cell.solver} on {cell.grid}, {cell.steps} steps" for cell in broken)
            raise InputError(
                f"{len(broken)} of {len(ordered)} cells have no figures, because a state or an image was not finite: "
                f"{names}. Leave them out, or compute in float32; the other cells are kept."
            )

    def rows(self, cells: Sequence[Cell]) -> list[dict[str, Any]]:
        """Return what was measured in each cell."""
        return [_read(self._figures(cell)) for cell in cells]

    def _solutions(self) -> list[tuple[Solution, Draws]]:
        """Return the solutions that are wanted, each with what it is drawn from."""
        found = [] if self.solution is None else [(self.solution, self.draws)]
        return found if self.population is None else [*found, (self.population.solution, self.population.draws)]

    def _to_be_solved(self, cells: Iterable[Cell], missing: Sequence[Cell]) -> list[tuple[Solution, Draws]]:
        """Return the solutions that these cells need and that are not there yet."""
        needed = {
            id(self.solution): not all(cell.sampler.stochastic for cell in cells),
            **({} if self.population is None else {id(self.population.solution): bool(missing)}),
        }
        return [
            (solution, draws)
            for solution, draws in self._solutions()
            if needed[id(solution)] and not solution.path.is_file()
        ]

    def _calls(self, cells: Sequence[Cell], unsolved: Sequence[tuple[Solution, Draws, list[int]]]) -> int:
        """Return the network calls of these cells, and of these batches of the solutions."""
        of_cells = sum(cell.sampler.nfe for cell in cells) * len(self.draws.seeds)
        of_solutions = 0
        for solution, draws, batches in unsolved:
            parts = map(draws.part, batches)
            of_solutions += solution.sampler.nfe * sum(part.stop - part.start for part in parts)
        return of_cells + of_solutions

    def pictures(self, cell: Cell) -> np.ndarray | None:
        """Return the first images of a cell, uint8 [n, H, W, C]; None where its samples are no pictures.

        Raises:
            InputError: if their file is damaged.
        """
        path = self._pictures(cell)
        if "samples" not in npz_names(path):
            return next(npz_batches(path, KEPT))
        npz_array(path, "samples")  # Refuses a file that is damaged.
        return None

    def solution_pictures(self) -> np.ndarray | None:
        """Return the first images of the reference solution, uint8 [n, H, W, C]; None if there are none."""
        if self.solution is None or not self.solution.path.is_file():
            return None
        first = kept(torch.from_numpy(self.solution.read(len(self.draws.seeds))[:KEPT].copy()))
        return first if first.dtype == np.uint8 else None

    def _is_there(self, cell: Cell) -> bool:
        """Whether a cell was measured before; one whose files are damaged is measured anew."""
        try:
            _read(self._figures(cell))
            self.pictures(cell)
        except (InputError, StopIteration):
            return False
        return True

    def _figures(self, cell: Cell) -> Path:
        return self.folder / f"{cell.name}.json"

    def _pictures(self, cell: Cell) -> Path:
        return self.folder / f"{cell.name}.npz"

    def _measure(self, cell: Cell, population: Moments | None, progress: Progress) -> None:
        solution = None
        if self.solution is not None and not cell.sampler.stochastic:
            solution = self.solution.read(len(self.draws.seeds))
        moments, errors = Moments(self.extractor.tag if self.extractor else ""), []
        first: np.ndarray | None = None
        for start, images in self.draws.drawn(cell.sampler, progress, network=cell.network):
            pixels = kept(images)
            if first is None or len(first) < KEPT:
                first = pixels[:KEPT] if first is None else np.concatenate([first, pixels])[:KEPT]
            if solution is not None:
                errors.append(squared_errors(images, torch.from_numpy(solution[start : start + len(images)].copy())))
            if self.extractor is not None:
                moments.update(self.extractor(from_uint8(pixels)))
        assert first is not None
        found: dict[str, Any] = {"nfe": cell.sampler.nfe}
        if errors:
            found["error"], found["error_low"], found["error_high"] = rmse_interval(torch.cat(errors))
        if self.against is not None:
            found["fd"] = frechet_distance(moments, self.against.moments)
        if population is not None:
            found["fd_solution"] = frechet_distance(moments, population)
        day = datetime.now(timezone.utc).date().isoformat()
        name = "images" if first.dtype == np.uint8 else "samples"
        write_samples(self._pictures(cell), name, first, self.draws.seeds[: len(first)])
        write_json(
            self._figures(cell), {**found, "batch_size": self.draws.batch_size, "measured": day, "versions": versions()}
        )


def _share(cells: Sequence[Cell], worker: Workers) -> list[Cell]:
    """Return the cells of one process: neighbours, as many network calls as any other process has."""
    calls = [cell.sampler.nfe for cell in cells]
    middles = [end - share / 2 for end, share in zip(accumulate(calls), calls, strict=True)]
    return [
        cell
        for cell, middle in zip(cells, middles, strict=True)
        if int(middle * worker.count / sum(calls)) == worker.index
    ]


class _Figures(Schema):
    """What was measured in a cell."""

    nfe: int
    error: float | None = None
    error_low: float | None = None
    error_high: float | None = None
    fd: float | None = None
    fd_solution: float | None = None
    batch_size: int
    measured: str
    versions: Plain

    @model_validator(mode="after")
    def _with_interval(self) -> _Figures:
        if self.error is not None and None in (self.error_low, self.error_high):
            raise ValueError("the error has no interval")
        return self


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, _Figures, "the figures").model_dump(exclude_unset=True)

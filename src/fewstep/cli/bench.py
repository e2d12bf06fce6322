"""The cells of a comparison, measured one by one and kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewstep.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from fewstep.integrations.model import Model
    from fewstep.metrics import Extractor
    from fewstep.metrics.summary import Summary
    from fewstep.plan import Plan

__all__ = ["Bench", "Cell", "keep_json"]


@dataclass(frozen=True)
class Cell:
    """One solver on one grid of one number of steps."""

    solver: str
    grid: str
    steps: int
    plan: Plan

    @property
    def file(self) -> str:
        """The name of the file that keeps its figures: the plan's hash is in it."""
        key = hashlib.sha256(self.plan.to_json().encode()).hexdigest()[:16]
        return f"cell-{key}.json"


@dataclass(frozen=True)
class Bench:
    """What all cells have in common.

    Attributes:
        folder: where figures and the reference solution are kept.
        model: what is sampled.
        seeds: of every cell.
        conditions: a class for each seed, or None.
        batch_size: samples at a time.
        extractor: the features of fd, or None.
        against: the reference of fd, or None.
        metrics: some of "error" and "fd".
    """

    folder: Path
    model: Model
    seeds: list[int]
    conditions: Any
    batch_size: int
    extractor: Extractor | None
    against: Summary | None
    metrics: list[str]

    def rows(self, cells: list[Cell], exact: Plan) -> list[dict[str, Any]]:
        """Return a row for each cell; those that were measured before are read."""
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        rows = []
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("comparing", total=len(cells))
            for cell in cells:
                path = self.folder / cell.file
                measured = _read(path) if path.is_file() else self._measure(cell, exact)
                rows.append({"solver": cell.solver, "grid": cell.grid, "steps": cell.steps, **measured})
                progress.advance(task)
        return rows

    def _measure(self, cell: Cell, exact: Plan) -> dict[str, Any]:
        import torch

        from fewstep.cli.images import to_uint8
        from fewstep.metrics import Moments, frechet_distance, from_uint8
        from fewstep.metrics.error import rmse_interval, squared_errors

        against_exact = "error" in self.metrics and not cell.plan.stochastic
        solution = self._exact(exact) if against_exact else None
        moments, errors = Moments(self.extractor.tag if self.extractor else ""), []
        for start, images in self._drawn(cell.plan):
            if solution is not None:
                errors.append(squared_errors(images, torch.from_numpy(solution[start : start + len(images)].copy())))
            if self.extractor is not None:
                moments.update(self.extractor(from_uint8(to_uint8(images))))
        found: dict[str, Any] = {"nfe": cell.plan.nfe}
        if errors:
            found["error"], found["error_low"], found["error_high"] = rmse_interval(torch.cat(errors))
        if self.against is not None:
            found["fd"] = frechet_distance(moments, self.against.moments)
        keep_json(self.folder / cell.file, found)
        return found

    def _drawn(self, plan: Plan) -> Iterator[tuple[int, Tensor]]:
        for start in range(0, len(self.seeds), self.batch_size):
            part = slice(start, start + self.batch_size)
            yield start, self.model.draw(plan, self.seeds[part], self.conditions and self.conditions[part]).cpu()

    def _exact(self, plan: Plan) -> np.ndarray:
        """Return the reference solution of every seed, made once and kept on disk, [n, C, H, W]."""
        import numpy as np

        from fewstep.cli.images import written_whole

        path = self.folder / "exact.npy"
        if not path.is_file():
            solution = np.concatenate([images.float().numpy() for _, images in self._drawn(plan)])
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

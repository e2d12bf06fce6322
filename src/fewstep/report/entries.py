"""The rows of a comparison, ordered for reading: entries, columns, and the best of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["METRICS", "Entry", "best", "contested", "digits", "entries_of", "grid_rows"]

METRICS = {
    "error": ("Error to the reference solution", "RMSE"),
    "fd": ("Fréchet distance to the reference images", "Fréchet distance"),
    "fd_solution": ("Fréchet distance to the model's solution from other noise", "Fréchet distance to the solution"),
}
"""The metrics a row may have, with a title and a short name; of each the smallest value is the best."""


@dataclass
class Entry:
    """One solver on one grid: a line of the curves, a row of the tables.

    Attributes:
        solver: its spec.
        grid: its spec.
        cells: the rows by number of network calls.
        pictures: the index of the row's images, likewise.
    """

    solver: str
    grid: str
    cells: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    pictures: dict[int, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the entry is called."""
        return f"{self.solver} on {self.grid}" if self.grid != "its own" else self.solver

    def values(self, metric: str) -> dict[int, float]:
        """Return the metric by number of network calls, where it was measured."""
        return {nfe: row[metric] for nfe, row in sorted(self.cells.items()) if metric in row}


def entries_of(rows: Sequence[Mapping[str, Any]]) -> list[Entry]:
    """Return the entries in the order of their first rows."""
    found: dict[tuple[str, str], Entry] = {}
    for index, row in enumerate(rows):
        entry = found.setdefault((row["solver"], row["grid"]), Entry(row["solver"], row["grid"]))
        entry.cells[row["nfe"]] = row
        entry.pictures[row["nfe"]] = index
    return list(found.values())


def best(rows: Iterable[Mapping[str, Any]], metric: str) -> dict[int, float]:
    """Return the smallest value of a metric for each number of network calls."""
    smallest: dict[int, float] = {}
    for row in rows:
        if metric in row:
            smallest[row["nfe"]] = min(row[metric], smallest.get(row["nfe"], row[metric]))
    return smallest


def contested(entries: Sequence[Entry]) -> list[int]:
    """Return the numbers of network calls at which different solvers meet; all of them if they never do."""
    solvers: dict[int, set[str]] = {}
    for entry in entries:
        for nfe in entry.cells:
            solvers.setdefault(nfe, set()).add(entry.solver)
    return sorted(nfe for nfe in solvers if len(solvers[nfe]) > 1) or sorted(solvers)


def digits(value: float, count: int = 4) -> str:
    """Return a number with ``count`` digits, trailing zeros too, so that columns can be read downwards."""
    return f"{value:.0f}" if abs(value) >= 10 ** (count - 1) else f"{value:#.{count}g}"


def grid_rows(entries: Sequence[Entry], steps: int) -> dict[str, list[float | None]]:
    """Return the σ/α of each different grid of ``steps`` intervals under a name; None stands for infinity.

    Grids that no solver changes are named once; those made for a solver are named with it.
    """
    found: dict[tuple[str, tuple[float | None, ...]], list[str]] = {}
    for entry in entries:
        for row in entry.cells.values():
            if row["steps"] == steps:
                found.setdefault((entry.grid, tuple(row["levels"])), []).append(entry.solver)
    alike = [grid for grid, _ in found]
    names = {
        key: ", ".join(solvers) if key[0] == "its own" else f"{key[0]}, {', '.join(solvers)}"
        for key, solvers in found.items()
    }
    return {key[0] if alike.count(key[0]) == 1 and key[0] != "its own" else names[key]: list(key[1]) for key in found}

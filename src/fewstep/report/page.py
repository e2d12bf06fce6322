"""A comparison as one HTML page: everything is inside, and everything that came from outside is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fewstep.errors import MissingPackageError
from fewstep.report.entries import METRICS, Entry, best, contested, digits, entries_of, grid_rows
from fewstep.report.figures import curves, grid_axis
from fewstep.report.mosaics import Mosaic, mosaic
from fewstep.report.style import styles

__all__ = ["comparison_page", "page_environment"]

FEW = 8
"""The most lines that share one panel; more are drawn in a panel for each grid."""


def comparison_page(
    table: Mapping[str, Any], pictures: Sequence[np.ndarray] = (), solution: np.ndarray | None = None
) -> str:
    """Return the report of a comparison as HTML.

    Args:
        table: what ``fewstep compare`` keeps in table.json: settings, command, versions and rows.
        pictures: the first images of each row, uint8 [n, H, W, C].
        solution: those of the reference solution.

    Raises:
        MissingPackageError: if jinja2, matplotlib or pillow is not installed.
    """
    environment = page_environment()
    rows, entries = table["rows"], entries_of(table["rows"])
    calls = sorted({row["nfe"] for row in rows})
    days = sorted({row["measured"] for row in rows})
    sections = [_metric(name, entries, rows) for name in METRICS if any(name in row for row in rows)]
    return environment.get_template("comparison.html").render(
        table=table,
        settings=table["settings"],
        entries=entries,
        calls=calls,
        days=days,
        metrics=sections,
        winners=[
            {"nfe": nfe, "best": [_winner(section, entries, nfe) for section in sections]} for nfe in contested(entries)
        ],
        images=[_images(entries, nfe, pictures) for nfe in calls] if len(pictures) else [],
        kept=len(pictures[0]) if len(pictures) else 0,
        solution=None if solution is None else mosaic(solution),
        grids=[_grids(entries, steps) for steps in sorted({row["steps"] for row in rows})],
        versions=_versions(rows),
        skips=sorted({row["skip"] for row in rows if "skip" in row}),
        peers=any(entry.solver.startswith("diffusers:") for entry in entries),
        stochastic=any("error" not in row for row in rows) and any("error" in row for row in rows),
    )


def page_environment() -> Any:
    """Return the environment of the templates beside this file: what comes from outside is escaped.

    Raises:
        MissingPackageError: if jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise MissingPackageError("reports need jinja2: pip install 'fewstep[cli]'.") from error
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_encodable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["digits"] = digits
    return environment


def _encodable(value: Any) -> Any:
    """Return text whose lone surrogates, of names that are no UTF-8, are written as escapes."""
    return value.encode("utf-8", "backslashreplace").decode() if type(value) is str else value


def _metric(name: str, entries: list[Entry], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a metric's titles, panels, legend and table."""
    title, short = METRICS[name]
    shown = [entry for entry in entries if entry.values(name)]
    draw = partial(curves, metric=name, label=short, everything=shown)
    if len(entries) <= FEW:
        looks = styles([entry.name for entry in entries])
        panels = [{"title": "", "uri": draw(shown, styles=looks), "lines": [e.name for e in shown]}]
        legend = {entry.name: looks[entry.name] for entry in shown}
    else:
        looks = styles([entry.solver for entry in entries])
        panels = []
        for grid in dict.fromkeys(entry.grid for entry in shown):
            some = [entry for entry in shown if entry.grid == grid]
            heading = "Samplers with a grid of their own" if grid == "its own" else f"On {grid}"
            panels.append({"title": heading, "uri": draw(some, styles=looks), "lines": [e.name for e in some]})
        legend = {entry.solver: looks[entry.solver] for entry in shown}
    return {
        "name": name,
        "title": title,
        "short": short,
        "panels": panels,
        "legend": legend,
        "entries": shown,
        "best": best(rows, name),
        "calls": sorted({nfe for entry in shown for nfe in entry.values(name)}),
        "interval": any(f"{name}_low" in row for row in rows),
    }


def _winner(section: dict[str, Any], entries: list[Entry], nfe: int) -> dict[str, Any] | None:
    """Return the entry with the smallest value at ``nfe`` calls, and the value."""
    if nfe not in section["best"]:
        return None
    value = section["best"][nfe]
    return {"name": next(e.name for e in entries if e.values(section["name"]).get(nfe) == value), "value": value}


def _images(entries: list[Entry], nfe: int, pictures: Sequence[np.ndarray]) -> dict[str, Any]:
    cards: list[tuple[Entry, Mosaic]] = [
        (entry, mosaic(pictures[entry.pictures[nfe]])) for entry in entries if nfe in entry.pictures
    ]
    return {"nfe": nfe, "cards": cards}


def _grids(entries: list[Entry], steps: int) -> dict[str, Any]:
    rows = grid_rows(entries, steps)
    return {"steps": steps, "uri": grid_axis(rows), "names": list(rows)}


def _versions(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the different sets of versions that the cells were measured with, the oldest first."""
    found: list[dict[str, str]] = []
    for row in sorted(rows, key=lambda row: row["measured"]):
        if row["versions"] not in found:
            found.append(row["versions"])
    return found

"""The catalogue of models, solvers and grids, one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import getdoc, signature

from rich.console import Console
from rich.table import Table

from fewstep import grids, solvers
from fewstep.models import zoo

__all__ = ["show"]


def show() -> None:
    """Print solvers, grids and models."""
    console = Console(highlight=False)
    for title, entries in (
        ("solvers", _described(solvers.NAMES)),
        ("grids", {**_described(grids.NAMES), "FILE.json": "a grid that TimeGrid.to_json wrote"}),
        ("models", zoo.MODELS),
    ):
        table = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 2))
        for name, text in entries.items():
            table.add_row(name, text)
        console.print(table)


def _described(known: Mapping[str, Callable[..., object]]) -> dict[str, str]:
    """Return what each entry is, from the first line of its docstring, and its settings."""
    lines = {}
    for name, maker in known.items():
        settings = ", ".join(
            f"{p.name}={p.default!r}"
            for p in signature(maker).parameters.values()
            if p.name not in ("process", "steps", "solver")
        )
        summary = (getdoc(maker) or "").split("\n")[0].replace("\\|", "|").replace("``", "")
        summary = summary.removeprefix("Return the grid that ").removeprefix("is ")
        lines[name] = summary + (f"  ({settings})" if settings else "")
    return lines

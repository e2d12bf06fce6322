"""The printed and written output of ``fewstep reproduce``: tables, needed files, figures beside the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table as Printed

from fewstep import reproduction
from fewstep.cli.shared.features import few_images
from fewstep.reproduction import Row, Table, Wanted
from fewstep.storage import write_json, write_text

__all__ = ["Result", "show", "show_needed", "show_tables", "write"]

UNKNOWN = "–"
"""Where a figure of the paper is not entered."""


@dataclass(frozen=True)
class Result:
    """A row, and what was measured.

    Attributes:
        row: of the table.
        fd: the Fréchet distance of the samples to the reference.
        images: how many there were.
    """

    row: Row
    fd: float
    images: int

    @property
    def difference(self) -> float | None:
        """Ours less the paper's; None where the paper's is not known."""
        return None if self.row.paper is None else self.fd - self.row.paper

    def to_dict(self) -> dict[str, Any]:
        """Return what is written, JSON-able."""
        return {**self.row.model_dump(mode="json"), "fd": self.fd, "difference": self.difference, "images": self.images}

    def words(self) -> list[str]:
        """Return the line of the printed table."""
        row = self.row
        sampler = f"{row.solver} on {row.grid}" + ("" if row.skip is None else f", skip {row.skip}")
        paper = UNKNOWN if row.paper is None else f"{row.paper:.2f}"
        difference = UNKNOWN if self.difference is None else f"{self.difference:+.2f}"
        return [row.name, sampler, str(row.calls), f"{self.fd:.4g}", paper, difference]


def show_tables() -> None:
    """Print the tables that come with the package."""
    printed = Printed(box=None, show_header=False, padding=(0, 2))
    for name in reproduction.NAMES:
        table = reproduction.named(name)
        printed.add_row(name, f"{table.title}: {len(table.rows)} rows (arXiv {table.paper.arxiv})")
    Console(highlight=False).print(printed)


def show_needed(table: Table, files: Sequence[Wanted]) -> None:
    """Print the files that a table needs, and its rows."""
    typer.echo(f"{table.title}, {table.paper.title} (arXiv {table.paper.arxiv}), {table.paper.place}")
    typer.echo(f"{table.samples} images a row; the files, for the folder of --weights and for --inception:")
    for file in files:
        known = "" if file.sha256 is None else f", SHA-256 {file.sha256}"
        typer.echo(f"  {file.path} from {file.url}{known}")
    typer.echo("rows:")
    for row in table.rows:
        skip = "" if row.skip is None else f", skip {row.skip}"
        paper = "" if row.paper is None else f"; the paper has {row.paper:g}"
        typer.echo(f"  {row.name}: {row.solver} on {row.grid}{skip}, {row.calls} network calls{paper}")
    for note in table.notes:
        typer.echo(f"note: {note}")


def show(table: Table, results: Sequence[Result], features: str, dimensions: int, out: Path) -> None:
    """Print our figures beside the paper's, measured in features of that name and so many dimensions."""
    printed = Printed(title=table.title, title_justify="left", box=None, padding=(0, 2))
    for name in _columns(features):
        printed.add_column(name, overflow="fold")
    for result in results:
        printed.add_row(*result.words())
    Console(highlight=False).print(printed)
    count = results[0].images
    if count != table.samples:
        typer.echo(f"of {count} images, where the paper has {table.samples}: the distance falls with their number.")
    few = few_images(count, dimensions, "the distance")
    if few is not None:
        typer.echo(few)
    for note in table.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"-> {out / 'results.json'}")


def write(out: Path, table: Table, results: Sequence[Result], settings: Mapping[str, Any]) -> None:
    """Write ``results.json`` and ``results.md``, each whole or not at all."""
    name = str(settings["features"]).partition("@")[0]
    record = {"format": "fewstep-reproduction-results/1", **settings, "rows": [one.to_dict() for one in results]}
    write_json(out / "results.json", record)
    lines = [_columns(name), ["---"] * 6, *(one.words() for one in results)]
    text = "\n".join(f"| {' | '.join(words)} |" for words in lines)
    notes = "".join(f"\n- {note}" for note in table.notes)
    write_text(out / "results.md", f"# {table.title}\n\n{text}\n{notes}\n")


def _columns(features: str) -> list[str]:
    kind = "FID" if features == "inception" else f"fd ({features})"
    return ["row", "sampler", "calls", f"{kind}, ours", "the paper's", "difference"]

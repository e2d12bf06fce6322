"""The results of ``fewstep compare``: table.csv, table.json, report.html, and the table on the screen."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fewstep.errors import one_line
from fewstep.report import METRICS, best, comparison_page
from fewstep.storage import write_json, write_whole

__all__ = ["show", "write"]

MEASURED = ("error", "error_low", "error_high", "fd", "fd_solution")
COLUMNS = ("solver", "grid", "steps", "skip", "nfe", "evaluations", *MEASURED, "command")


def write(folder: Path, table: dict[str, Any], pictures: list[np.ndarray], solution: np.ndarray | None) -> None:
    """Write the table as CSV, as JSON and as a page; each file is whole or untouched.

    Args:
        folder: where.
        table: settings, command, versions and rows.
        pictures: the first images of each row, uint8 [n, H, W, C].
        solution: those of the reference solution, if there is one.
    """

    def write_csv(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            rows = table["rows"]
            columns = [name for name in COLUMNS if any(name in row for row in rows)]
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def write_page(part: Path) -> None:
        part.write_text(comparison_page(table, pictures, solution), "utf-8")

    write_whole(folder / "table.csv", write_csv)
    write_json(folder / "table.json", table)
    write_whole(folder / "report.html", write_page)


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table, the best of each number of network calls in bold; what no row has is left out."""
    leaders = {name: best(rows, name) for name in METRICS if any(name in row for row in rows)}
    columns = [word for name in leaders for word in ([name, "interval"] if name == "error" else [name])]
    extra = [name for name in ("evaluations", "skip") if any(name in row for row in rows)]
    fixed = ["solver", "grid", "steps", "nfe", *extra]
    table = Table(*fixed, *columns, box=None)
    for row in rows:
        shown = {
            name: Text(f"{row[name]:.4g}", "bold" if row[name] == leaders[name][row["nfe"]] else "")
            for name in leaders
            if name in row
        }
        if "error" in row:
            shown["interval"] = Text(f"{row['error_low']:.4g} … {row['error_high']:.4g}")
        words = (Text(one_line(str(row.get(name, "")))) for name in fixed)
        table.add_row(*words, *(shown.get(name, "") for name in columns))
    Console().print(table)

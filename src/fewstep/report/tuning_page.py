"""A search for the best recipe as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fewstep.report.figures import candidates, grid_axis, predictions
from fewstep.report.mosaics import mosaic
from fewstep.report.page import page_environment

__all__ = ["tuning_page"]

METRICS = {
    "error": ("Error to the solution", "RMSE"),
    "feature-error": ("Error of features to the solution's", "RMSE of features"),
    "fd": ("Fréchet distance to the images", "Fréchet distance"),
    "score": ("Score", "score"),
}
GRIDS = 8
"""The most grids that are drawn."""
FIRST = 12
"""Candidates whose rows are not folded away."""
FEWEST = 3
"""The fewest candidates whose predicted errors are drawn beside the measured ones."""


def tuning_page(search: Mapping[str, Any], pictures: Sequence[tuple[str, str, np.ndarray]] = ()) -> str:
    """Return the report of a search as HTML.

    Args:
        search: "model", "calls", "spent", "budget", "reference_steps", "prompts", "command", "use" (a command line),
            "python" (lines of Python), "versions", "verdict" (``Verdict.to_dict`` and its "sentence"), and "rows", the
            candidates, best first: "name", "value", "noises", "predicted" (or None), "levels", "winner", "default".
        pictures: of the same noises: a name, a line about it and uint8 images [n, H, W, C].

    Raises:
        MissingPackageError: if jinja2, matplotlib or pillow is not installed.
    """
    verdict, rows = search["verdict"], search["rows"]
    title, short = METRICS[verdict["metric"]]
    curve = {int(number): value for number, value in verdict["default_values"].items()}
    winner = verdict["winner"]
    pairs = [(row["predicted"], row["value"]) for row in rows if row["predicted"] is not None]
    shown = [row for row in rows if row["winner"] or row["default"]]
    shown += [row for row in rows if row not in shown]
    return (
        page_environment()
        .get_template("tuning.html")
        .render(
            search=search,
            verdict=verdict,
            rows=rows,
            title=title,
            short=short,
            points=candidates(
                curve,
                search["calls"],
                [row["value"] for row in rows],
                winner["value"],
                short,
                (winner["low"], winner["high"]),
            ),
            predicted=predictions(pairs, short) if len(pairs) >= FEWEST else None,
            grids=grid_axis({row["name"]: row["levels"] for row in shown[:GRIDS]}),
            grid_names=[row["name"] for row in shown[:GRIDS]],
            pictures=[(name, words, mosaic(images)) for name, words, images in pictures],
            first=FIRST,
            kept=len(pictures[0][2]) if pictures else 0,
        )
    )

"""The look of all figures: palette, matplotlib settings, and a colour and a marker for each entry or solver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.errors import MissingPackageError

__all__ = ["ACCENT", "COLOURS", "INK", "MUTED", "PALE", "RULE", "SETTINGS", "Style", "drawing", "plain_ticks", "styles"]

COLOURS = ("#0b6bcb", "#c8381d", "#12805c", "#8a4fbf", "#b7791f", "#0e7c86", "#c2328b", "#5b6b1a", "#6b4a36", "#3f51b5")
"""Dark enough on white to be read; neighbours differ in lightness as well as in hue."""
ACCENT = COLOURS[1]
"""The colour of what a figure is about."""
INK, MUTED, PALE, RULE = "#1d2733", "#5b6772", "#c4ccd4", "#e3e8ec"
"""Letters; what something is compared with; what stands behind; lines across."""
SETTINGS: Any = {
    "svg.fonttype": "path",
    "svg.hashsalt": "fewstep",
    "font.family": "DejaVu Sans",
    "axes.edgecolor": "#8b97a3",
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.prop_cycle": f"cycler('color', {list(COLOURS)})",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,
    "xtick.color": "#3b4754",
    "ytick.color": "#3b4754",
}
"""Of matplotlib, for every figure."""
MARKERS = ("o", "s", "^", "D", "v")
SHAPES = {
    "o": "M10 6a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "s": "M10.4 2.4h7.2v7.2h-7.2z",
    "^": "M14 1.6l4.6 8h-9.2z",
    "D": "M14 1.2l4.8 4.8l-4.8 4.8l-4.8 -4.8z",
    "v": "M14 10.4l4.6 -8h-9.2z",
}
"""The markers as paths of an SVG of 28 × 12 units, for legends."""


@dataclass(frozen=True)
class Style:
    """How a line is drawn."""

    colour: str
    marker: str
    dashed: bool = False

    @property
    def shape(self) -> str:
        """The marker as a path of a legend's swatch."""
        return SHAPES[self.marker]


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Return a style for each name; foreign samplers, "diffusers:…", are dashed."""
    return {
        name: Style(
            COLOURS[i % len(COLOURS)],
            MARKERS[(i + i // len(COLOURS)) % len(MARKERS)],
            name.startswith("diffusers:"),
        )
        for i, name in enumerate(dict.fromkeys(names))
    }


@contextmanager
def drawing(
    path: Path, width: float, height: float, rows: int = 1, columns: int = 1, *, dpi: int = 110, **settings: Any
) -> Iterator[tuple[Any, Any]]:
    """Yield a figure of ``width`` × ``height`` inches and its axes [rows, columns], and write it to ``path``.

    Args:
        path: where to; its end says in which format.
        width: of the figure, in inches.
        height: likewise.
        rows: how many rows of panels.
        columns: how many panels a row.
        dpi: pixels an inch.
        **settings: of ``Figure.subplots``, such as ``sharex=True``.

    Raises:
        MissingPackageError: if matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError("figures need matplotlib: pip install 'fewstep[cli]'.") from error
    with rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False, **settings)
        figure.savefig(path, dpi=dpi, format=path.suffix[1:])


def plain_ticks(*axes: Any) -> None:
    """Label logarithmic axes with numbers as they are written: matplotlib's powers are mathematics, which is off."""
    from matplotlib.ticker import NullFormatter

    for axis in axes:
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())

"""The look of lines: a colour and a marker for each entry or solver, the same in figures and in legends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Style", "styles"]

COLOURS = ("#0b6bcb", "#c8381d", "#12805c", "#8a4fbf", "#b7791f", "#0e7c86", "#c2328b", "#5b6b1a", "#6b4a36", "#3f51b5")
"""Dark enough on white to be read; neighbours differ in lightness as well as in hue."""
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

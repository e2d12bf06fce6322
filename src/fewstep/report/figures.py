"""Figures as SVG in data URIs: curves over the number of network calls, and grids on an axis of noise."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fewstep.errors import MissingPackageError
from fewstep.report.entries import Entry
from fewstep.report.style import ACCENT, COLOURS, INK, PALE, RULE, SETTINGS, Style, plain_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["candidates", "curves", "grid_axis", "predictions"]

LETTERS: Any = {**SETTINGS, "font.size": 12}
WIDTH = 5.6
"""In inches of 96 pixels: letters stay readable where a telephone shows 360 of them."""


def curves(
    entries: Sequence[Entry],
    metric: str,
    label: str,
    everything: Sequence[Entry],
    styles: Mapping[str, Style],
) -> str:
    """Return a figure of ``metric`` over the number of network calls as a data URI.

    Args:
        entries: the lines; one's interval, where it is known, is a band around it.
        metric: which value of the rows.
        label: of the vertical axis.
        everything: all entries that have the metric: those that are not among the lines are drawn in grey, and all
            decide the axes, so that the panels of one comparison have the same ones.
        styles: by ``Entry.name`` or, failing that, by ``Entry.solver``.
    """
    figure, axes = _empty(3.7)
    for entry in everything:
        if entry not in entries:
            values = entry.values(metric)
            axes.plot(list(values), list(values.values()), color=PALE, linewidth=0.9, zorder=1)
    for entry in entries:
        style = styles.get(entry.name) or styles[entry.solver]
        values = entry.values(metric)
        dashes = "--" if style.dashed else "-"
        axes.plot(
            list(values),
            list(values.values()),
            dashes,
            color=style.colour,
            marker=style.marker,
            markersize=5.5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            linewidth=1.7,
            zorder=3,
        )
        low, high = entry.values(f"{metric}_low"), entry.values(f"{metric}_high")
        axes.fill_between(
            list(low), list(low.values()), list(high.values()), color=style.colour, alpha=0.14, linewidth=0, zorder=2
        )
    found = [v for e in everything for end in ("", "_low", "_high") for v in e.values(f"{metric}{end}").values()]
    _axes_of_curves(axes, found, sorted({nfe for entry in everything for nfe in entry.values(metric)}))
    axes.set(xlabel="network calls (NFE)", ylabel=label)
    return _uri(figure)


def candidates(
    curve: Mapping[int, float],
    calls: int,
    values: Sequence[float],
    winner: float,
    label: str,
    interval: Sequence[float],
) -> str:
    """Return a figure of candidates as points over the number of network calls, beside a curve, as a data URI.

    Args:
        curve: what they are compared with: a value by number of calls.
        calls: of the candidates.
        values: one for each.
        winner: the value of the best on unseen noises, with its ``interval``, (low, high).
        label: of the vertical axis.
        interval: of the winner.
    """
    figure, axes = _empty(3.7)
    numbers = sorted(curve)
    axes.plot(numbers, [curve[n] for n in numbers], "o-", color=COLOURS[0], markersize=5.5, linewidth=1.7, zorder=3)
    axes.plot([calls] * len(values), list(values), "_", color="#8b97a3", markersize=11, alpha=0.75, zorder=2)
    axes.axhline(winner, color=ACCENT, linewidth=1, linestyle=":", zorder=1)
    axes.plot([calls, calls], list(interval), color=ACCENT, linewidth=2.2, zorder=4)
    axes.plot([calls], [winner], "D", color=ACCENT, markersize=7, markeredgecolor="white", zorder=5)
    _axes_of_curves(axes, [*curve.values(), *values, winner, *interval], sorted({calls, *curve}))
    axes.set(xlabel="network calls (NFE)", ylabel=label)
    return _uri(figure)


def predictions(pairs: Sequence[tuple[float, float]], label: str) -> str:
    """Return a figure of measured values over predicted ones, a point for each candidate, as a data URI."""
    figure, axes = _empty(3.7)
    axes.plot([x for x, _ in pairs], [y for _, y in pairs], "o", color=COLOURS[0], markersize=5, alpha=0.8)
    positive = all(value > 0 for pair in pairs for value in pair)
    if positive:
        axes.set(xscale="log", yscale="log")
        plain_ticks(axes.xaxis, axes.yaxis)
    axes.grid(True, color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set(xlabel="error predicted on Gaussian data", ylabel=label)
    return _uri(figure)


def _axes_of_curves(axes: Axes, values: list[float], calls: list[int]) -> None:
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, ScalarFormatter, StrMethodFormatter

    if calls[-1] > 2 * calls[0]:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(_apart(calls)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    low, high = min(values), max(values)
    if low > 0 and high > 3 * low:
        margin = (high / low) ** 0.05
        axes.set(yscale="log", ylim=(low / margin, high * margin))
        if high < 100 * low:
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high > 10 * low else (1, 2, 3, 5, 7)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
    else:
        margin = 0.05 * (high - low) or 0.05 * abs(low) or 1.0
        axes.set_ylim(low - margin, high + margin)
        axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.grid(True, axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)


def _apart(calls: list[int]) -> list[int]:
    """Return the numbers that can be written on one axis without touching."""
    if len(calls) < 2:
        return calls
    shown, span = [calls[0]], math.log(calls[-1] / calls[0])
    for number in calls[1:]:
        if math.log(number / shown[-1]) > 0.065 * span:
            shown.append(number)
    return shown


def grid_axis(grids: Mapping[str, Sequence[float | None]]) -> str:
    """Return a figure of grids as points on an axis of σ/α = e^{−λ}, a row each, as a data URI.

    Args:
        grids: σ/α at each time, from noise to data; None stands for infinity. Pure noise and the noise-free end, which
            have no place on the axis, are drawn hollow at its ends.
    """
    finite = [level for levels in grids.values() for level in levels if level] or [1.0]
    left, right = max(finite) * 2.0, min(finite) / 2.0
    figure, axes = _empty(0.75 + 0.48 * len(grids))
    for row, (name, levels) in enumerate(grids.items()):
        inside = [level for level in levels if level]
        axes.axhline(row, color=RULE, linewidth=1, zorder=1)
        axes.plot(inside, [row] * len(inside), "o", color=COLOURS[0], markersize=5, zorder=3)
        for level, place in ((levels[0], left), (levels[-1], right)):
            if not level:
                axes.plot(
                    [place],
                    [row],
                    "o",
                    color=COLOURS[0],
                    markerfacecolor="white",
                    markersize=5,
                    clip_on=False,
                    zorder=3,
                )
        axes.annotate(
            _short(name),
            (0, row),
            xycoords=("axes fraction", "data"),
            xytext=(0, 5),
            textcoords="offset points",
            va="bottom",
            fontsize=11,
            color=INK,
        )
    axes.set(xscale="log", xlabel="σ/α, from noise to data", xlim=(left, right), ylim=(len(grids) - 0.6, -0.8))
    plain_ticks(axes.xaxis)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    return _uri(figure)


def _short(name: str, length: int = 62) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _empty(height: float) -> tuple[Figure, Any]:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError("figures need matplotlib: pip install 'fewstep[cli]'.") from error
    with rc_context(LETTERS):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
    return figure, axes


def _uri(figure: Figure) -> str:
    from matplotlib import rc_context
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if isinstance(text, Text):
            text.set_parse_math(False)  # Names come from outside: a $ in them is a $.
    buffer = io.BytesIO()
    with rc_context(LETTERS):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"

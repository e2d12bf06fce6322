"""The figures of ``fewstep skip``: one for each diagnostic, and one of a search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fewstep.report.style import ACCENT, INK, MUTED, RULE, drawing, plain_ticks
from fewstep.skip_analysis import Change, NoiseStatistics, NormRatios, SearchPoint, SearchResult
from fewstep.skip_analysis.search import Window

__all__ = ["draw_complexity", "draw_inversion", "draw_losses", "draw_ratios", "draw_search"]


@contextmanager
def _figure(path: Path, panels: int = 1, width: float = 4.2, height: float = 3.2) -> Iterator[list[Any]]:
    """Yield the axes of a row of panels, and write the figure at the end."""
    with drawing(path, width * panels, height, 1, panels) as (_, axes):
        yield list(axes[0])


def draw_ratios(ratios: NormRatios, path: Path) -> None:
    """Draw the norm ratio of every skip over the noise level, from the deepest to the outermost."""
    with _figure(path, width=5.6) as (axes,):
        from matplotlib import colormaps

        count = len(ratios.skips)
        for i, skip in enumerate(ratios.skips):
            size = "×".join(map(str, skip.resolution)) if skip.resolution else ""
            colour = colormaps["viridis"](0.9 * i / max(count - 1, 1))
            axes.plot(
                ratios.levels,
                ratios.mean[:, i].tolist(),
                "o-",
                color=colour,
                markersize=3,
                linewidth=1,
                label=f"{skip.depth}  {size}",
            )
        axes.set(xscale="log", yscale="log", xlabel="noise level σ/α", ylabel="‖skip‖ / ‖hidden‖")
        plain_ticks(axes.xaxis)
        _number_all(axes.yaxis)
        axes.axhline(1.0, color=RULE, linewidth=0.8, zorder=0)
        axes.legend(title="depth", fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def draw_losses(
    levels: Sequence[float],
    pixel: Change,
    feature: Change | None,
    bands: Mapping[str, Change] | None,
    path: Path,
) -> None:
    """Draw the change of the denoising loss by tuning, with two standard errors, over the noise level.

    A panel each is of pixels, of features and of pixels by wavelet band.
    """
    shown = {"in pixels": {"": pixel}}
    if feature is not None:
        shown["in features"] = {"": feature}
    if bands is not None:
        shown["by wavelet band"] = dict(bands)
    with _figure(path, len(shown)) as panels:
        for axes, (title, changes) in zip(panels, shown.items(), strict=True):
            _draw_changes(axes, levels, changes)
            axes.set(title=title, ylabel="denoising loss, change by tuning (%)")


def draw_complexity(levels: Sequence[float], found: Mapping[float, Change], path: Path) -> None:
    """Draw the complexity over the noise level, and its change over ρ at each level, with two standard errors."""
    from matplotlib import colormaps

    untuned = next(iter(found.values())).untuned.tolist()
    with _figure(path, 2) as (left, right):
        left.plot(levels, untuned, "o-", color=MUTED, markersize=4, linewidth=1, label="untuned")
        last = list(found)[-1]
        left.plot(
            levels, found[last].tuned.tolist(), "o-", color=ACCENT, markersize=4, linewidth=1, label=f"ρ = {last:.3g}"
        )
        left.set(xscale="log", yscale="log", xlabel="noise level σ/α", ylabel="complexity ‖∂U/∂x‖/√d")
        plain_ticks(left.xaxis)
        _number_all(left.yaxis)
        left.legend(fontsize=8)
        for i, level in enumerate(levels):
            right.errorbar(
                [1.0, *found],
                [0.0, *(100 * float(change.relative[i]) for change in found.values())],
                [0.0, *(200 * float(change.error[i]) for change in found.values())],
                fmt="o-",
                color=colormaps["viridis"](0.9 * i / max(len(levels) - 1, 1)),
                markersize=3,
                linewidth=1,
                label=f"{level:.3g}",
            )
        right.axhline(0.0, color=MUTED, linewidth=0.8)
        right.set(xlabel="ρ furthest from 1", ylabel="complexity, change by tuning (%)")
        right.legend(title="σ/α", fontsize=7, title_fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _draw_changes(axes: Any, levels: Sequence[float], changes: Mapping[str, Change]) -> None:
    """Draw relative changes, by their names where there are several, over the noise level."""
    from matplotlib import colormaps

    for i, (name, change) in enumerate(changes.items()):
        axes.errorbar(
            levels,
            (100 * change.relative).tolist(),
            (200 * change.error).tolist(),
            fmt="o-",
            color=ACCENT if len(changes) == 1 else colormaps["viridis"](0.9 * i / (len(changes) - 1)),
            markersize=4 if len(changes) == 1 else 3,
            linewidth=1,
            capsize=2,
            label=name,
        )
    axes.axhline(0.0, color=MUTED, linewidth=0.8)
    axes.set(xscale="log", xlabel="noise level σ/α")
    plain_ticks(axes.xaxis)
    if len(changes) > 1:
        axes.legend(fontsize=8)


def draw_inversion(untuned: NoiseStatistics, tuned: NoiseStatistics, path: Path) -> None:
    """Draw MMD² and moments of the inverted noise, untuned and tuned, beside those of a Gaussian."""
    names = {
        "mmd": "MMD² to N(0, 1)",
        "variance": "variance − 1",
        "kurtosis": "excess kurtosis",
        "neighbours": "neighbours' correlation",
    }
    before, after = ({**asdict(x), "variance": x.variance - 1.0} for x in (untuned, tuned))
    with _figure(path, len(names), width=2.3, height=2.8) as panels:
        for axes, (key, name) in zip(panels, names.items(), strict=True):
            axes.bar(["untuned", "tuned"], [before[key], after[key]], color=[MUTED, ACCENT], width=0.6)
            axes.axhline(0.0, color=INK, linewidth=0.8)
            if key == "mmd":
                axes.axhspan(-before["chance"], before["chance"], color=RULE, zorder=0)
            axes.set_title(name, fontsize=9)
            axes.yaxis.set_major_formatter("{x:.3g}")
            axes.tick_params(labelsize=8)


def draw_search(result: SearchResult, metric: str, path: Path) -> None:
    """Draw every point that was evaluated, over ρ of the deepest skip: a panel for each τ.

    A line is of one window of noise levels and one ρ of the outermost skip.
    """
    taus = list(dict.fromkeys(point.tau for point in result.points))
    with _figure(path, len(taus), width=5.0 if len(taus) == 1 else 4.2) as panels:
        for axes, tau in zip(panels, taus, strict=True):
            _draw_rho(axes, [point for point in result.points if point.tau == tau], metric)
            if tau is not None:
                axes.set_title(f"τ = {tau}", fontsize=9)
            if result.best.tau == tau:
                axes.plot([result.best.bottom], [result.best.value], "*", color=INK, markersize=9)
        low, high = min(axes.get_ylim()[0] for axes in panels), max(axes.get_ylim()[1] for axes in panels)
        for axes in panels:
            axes.set_ylim(low, high)


def _draw_rho(axes: Any, points: Sequence[SearchPoint], metric: str) -> None:
    from matplotlib import colormaps

    tuned = [point for point in points if point.tuned]
    lines = list(dict.fromkeys((point.window, point.top) for point in tuned))
    tops, windows = ({key[place] for key in lines} for place in (1, 0))
    for i, (window, top) in enumerate(lines):
        line = sorted((point.bottom, point.value) for point in tuned if (point.window, point.top) == (window, top))
        colour = ACCENT if len(lines) == 1 else colormaps["viridis"](0.9 * i / (len(lines) - 1))
        within = _levels(window)
        shown = [within] * (len(windows) > 1) + [f"{top:.3g}"] * (len(tops) > 1 or len(windows) == 1)
        axes.plot(*zip(*line, strict=True), "o-", color=colour, markersize=4, linewidth=1, label=", ".join(shown))
    untuned = next(point for point in points if not point.tuned)
    axes.axhline(untuned.value, color=MUTED, linewidth=0.8, linestyle="--", label="untuned")
    axes.set(xlabel="ρ of the deepest skip", ylabel=metric)
    title = "ρ of the outermost" if len(windows) == 1 else "skips scaled at"
    axes.legend(title=title, fontsize=8, title_fontsize=8)


def _levels(window: Window) -> str:
    """Return the noise levels of a window in words."""
    low, high = window or (None, None)
    below, above = "" if low is None else f"{low:g} ≤ ", "" if high is None else f" ≤ {high:g}"
    return f"{below}σ/α{above}" if window else "all σ/α"


def _number_all(axis: Any) -> None:
    """Label the ticks between powers of ten too, on a logarithmic axis of about one power."""
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("{x:g}")

"""The figures of ``fewstep skip``: one for each diagnostic, and one of a search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fewstep.report.style import ACCENT, INK, MUTED, RULE, drawing
from fewstep.skip_analysis import Change, NoiseStatistics, NormRatios, SearchResult

__all__ = ["draw_inversion", "draw_losses", "draw_ratios", "draw_search"]


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
        for labels in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            labels("{x:g}")
        axes.axhline(1.0, color=RULE, linewidth=0.8, zorder=0)
        axes.legend(title="depth", fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def draw_losses(levels: Sequence[float], pixel: Change, feature: Change | None, path: Path) -> None:
    """Draw the change of the denoising loss by tuning, with two standard errors, over the noise level."""
    shown = [("pixels", pixel)] + ([("features", feature)] if feature is not None else [])
    with _figure(path, len(shown)) as panels:
        for axes, (name, change) in zip(panels, shown, strict=True):
            axes.errorbar(
                levels,
                (100 * change.relative).tolist(),
                (200 * change.error).tolist(),
                fmt="o-",
                color=ACCENT,
                markersize=4,
                linewidth=1,
                capsize=2,
            )
            axes.axhline(0.0, color=MUTED, linewidth=0.8)
            axes.set(
                xscale="log",
                xlabel="noise level σ/α",
                title=f"in {name}",
                ylabel="denoising loss, change by tuning (%)",
            )


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
    """Draw every point that was evaluated, over ρ of the deepest skip; one line for each ρ of the outermost."""
    untuned, *points = result.points
    with _figure(path, width=5.0) as (axes,):
        from matplotlib import colormaps

        tops = sorted({point.top for point in points})
        for i, top in enumerate(tops):
            line = sorted((point.bottom, point.value) for point in points if point.top == top)
            colour = ACCENT if len(tops) == 1 else colormaps["viridis"](0.9 * i / (len(tops) - 1))
            axes.plot(*zip(*line, strict=True), "o-", color=colour, markersize=4, linewidth=1, label=f"{top:.3g}")
        axes.axhline(untuned.value, color=MUTED, linewidth=0.8, linestyle="--", label="untuned")
        axes.plot([result.best.bottom], [result.best.value], "*", color=INK, markersize=9)
        axes.set(xlabel="ρ of the deepest skip", ylabel=metric)
        axes.legend(title="ρ of the outermost", fontsize=8, title_fontsize=8)

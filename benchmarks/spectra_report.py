"""The report of benchmarks/spectra.py: tables, correlations, and the figure.

python benchmarks/spectra_report.py
"""

from __future__ import annotations

from typing import Any

import figures
import numpy as np
from scipy.stats import spearmanr

from fewstep.report.style import drawing, plain_ticks, styles

__all__ = ["report"]

OURS = ("spectrum", "spectrum of images")
FIRST = 32


def shown_noises(grids: dict[str, Any], place: int) -> int:
    """Return the number of noises that the two spectral grids and most others have at one number of calls."""
    counts = [row["noises"][place] for row in grids.values()]
    return min(max(counts), *(grids[name]["noises"][place] for name in OURS))


def value(row: dict[str, Any], key: str, place: int, noises: int) -> float | None:
    """Return a figure of a cell over all noises, or over the first 32 where it has no more."""
    if noises == 0 or row["noises"][place] == 0:
        return None
    found = row.get(key if row["noises"][place] >= noises else f"first {key}")
    return None if found is None else found[place]


def table(grids: dict[str, Any], calls: list[int]) -> str:
    """Return the table of a solver: mean (median) of each grid, the least of each in bold."""
    lines = ["| grid | " + " | ".join(map(str, calls)) + " |", "|---|" + "---:|" * len(calls)]
    noises = [shown_noises(grids, place) for place in range(len(calls))]
    full = {name: [row["noises"][p] >= n > 0 for p, n in enumerate(noises)] for name, row in grids.items()}
    for name, row in grids.items():
        cells = []
        for place, count in enumerate(noises):
            parts = []
            for key in ("mean", "median"):
                found = value(row, key, place, count)
                others = [value(r, key, place, count) for n, r in grids.items() if full[n][place]]
                if found is None:
                    continue
                text = f"{found:.4f}"
                parts.append(f"**{text}**" if full[name][place] and found == min(o for o in others if o) else text)
            mark = "" if full[name][place] or not parts else " ¹"
            cells.append(f"{parts[0]} ({parts[1]}){mark}" if parts else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("| noises | " + " | ".join(map(str, noises)) + " |")
    return "\n".join(lines)


def ratios(results: dict[str, Any]) -> str:
    """Return the table of what a spectral grid errs in units of the best other grid."""
    head = "| model | solver | grid | " + " | ".join(map(str, next(iter(results.values()))["calls"])) + " |"
    lines = [head, "|---|---|---|" + "---:|" * (head.count("|") - 4)]
    for model, found in results.items():
        for solver, grids in found["solvers"].items():
            for ours in OURS:
                cells = []
                for place in range(len(found["calls"])):
                    noises, parts = shown_noises(grids, place), []
                    for key in ("mean", "median"):
                        others = [
                            value(row, key, place, noises)
                            for name, row in grids.items()
                            if name not in OURS and row["noises"][place] >= noises
                        ]
                        own = value(grids[ours], key, place, noises)
                        if own is not None and all(others) and others:
                            parts.append(f"{own / min(others):.2f}")
                    cells.append(f"{parts[0]} ({parts[1]})" if len(parts) == 2 else "")
                if any(cells):
                    lines.append(f"| {model} | {solver} | {ours} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def pairs(grids: dict[str, Any], place: int) -> list[tuple[float, float]]:
    """Return (predicted, measured) of all grids at one number of calls."""
    found = []
    for row in grids.values():
        measured = value(row, "mean", place, shown_noises(grids, place))
        if measured is not None:
            found.append((row["predicted"][place], measured))
    return found


def correlations(results: dict[str, Any]) -> str:
    """Return the table of the rank correlation of predicted and measured errors."""
    calls = next(iter(results.values()))["calls"]
    lines = ["| model | over grids of | " + " | ".join(map(str, calls)) + " |", "|---|---|" + "---:|" * len(calls)]
    for model, found in results.items():
        kinds = {solver: [solver] for solver in found["solvers"]}
        kinds["all deterministic solvers"] = [name for name in found["solvers"] if not name.startswith("SA")]
        for words, chosen in kinds.items():
            cells = []
            for place in range(len(calls)):
                some = [pair for name in chosen for pair in pairs(found["solvers"][name], place)]
                rank = spearmanr(*zip(*some, strict=True)).statistic if len(some) > 5 else None
                cells.append("" if rank is None else f"{rank:.2f}")
            if any(cells):
                lines.append(f"| {model} | {words} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def distances(found: dict[str, Any]) -> str:
    """Return the table of Fréchet distances of UniPC-2 and SA-Solver, of the same samples."""
    calls = found["calls"]
    lines = ["| solver | grid | " + " | ".join(map(str, calls)) + " |", "|---|---|" + "---:|" * len(calls)]
    for solver, grids in found["solvers"].items():
        for name, row in grids.items():
            fd = row.get("fd", [None] * len(calls))
            same = [row["noises"][p] >= shown_noises(grids, p) > 0 for p in range(len(calls))]
            cells = ["" if x is None or not ok else f"{x:.2f}" for x, ok in zip(fd, same, strict=True)]
            if any(cells):
                lines.append(f"| {solver} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report() -> str:
    """Return all tables."""
    results = figures.read("spectra")
    parts = ["What a spectral grid errs, as a share of the best other grid's mean (median):", ratios(results)]
    parts += ["Rank correlation (Spearman) of predicted and measured errors over grids:", correlations(results)]
    for model, found in results.items():
        for solver, grids in found["solvers"].items():
            if any(count for row in grids.values() for count in row["noises"]):
                parts += [f"### {model}, {solver}", table(grids, found["calls"])]
    parts.append("¹ on the first 32 noises alone.")
    if "fashion-mnist" in results:
        parts += ["### Fréchet distance of the same samples of fashion-mnist", distances(results["fashion-mnist"])]
    return "\n\n".join(parts)


def plot() -> None:
    """Draw measured over predicted errors, a panel for each model."""
    results = figures.read("spectra")
    path = figures.RESULTS / "spectra.png"
    with drawing(path, 5.2 * len(results), 4.4, columns=len(results), sharex=True, sharey=True) as (_, panels):
        for axes, (model, found) in zip(panels[0], results.items(), strict=True):
            for solver, style in styles(list(found["solvers"])).items():
                grids = found["solvers"][solver]
                some = [pair for place in range(len(found["calls"])) for pair in pairs(grids, place)]
                if some:
                    x, y = np.array(some).T
                    axes.plot(x, y, style.marker, color=style.colour, label=solver, markersize=4, alpha=0.7)
            axes.set(xscale="log", yscale="log", title=model, xlabel="predicted error", ylabel="measured error")
            plain_ticks(axes.xaxis, axes.yaxis)
            axes.legend(fontsize=8)


if __name__ == "__main__":
    plot()
    print(report())

"""The report of benchmarks/spectra.py: tables, correlations, and the figure.

python benchmarks/spectra_report.py
"""

from __future__ import annotations

from typing import Any

import figures
import numpy as np
from scipy.stats import spearmanr

import fewstep as fs
from fewstep.report.style import drawing, plain_ticks, styles

__all__ = ["report", "stable_diffusion"]

OURS = ("spectrum", "spectrum of images")


def shown_noises(grids: dict[str, Any], place: int) -> int:
    """Return the number of noises that the two spectral grids and most others have at one number of calls."""
    counts = [row["noises"][place] for row in grids.values()]
    return min(max(counts), *(grids[name]["noises"][place] for name in OURS))


def value(row: dict[str, Any], key: str, place: int, noises: int) -> float | None:
    """Return a figure of a cell, None where nothing was measured."""
    return None if noises == 0 or row["noises"][place] == 0 else row[key][place]


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
    """Return the table of the rank correlation of likely and measured errors."""
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
    """Return all tables; those of other solvers than UniPC-2, and the Fréchet distances, are folded."""
    results = figures.read("spectra")
    parts = ["What a spectral grid errs, as a share of the best other grid's mean (median):", ratios(results)]
    parts += ["Rank correlation (Spearman) of likely and measured errors over grids:", correlations(results)]
    folded = []
    for model, found in results.items():
        for solver, grids in found["solvers"].items():
            if any(count for row in grids.values() for count in row["noises"]):
                shown = [f"{model}, {solver}:", table(grids, found["calls"])]
                if solver == "UniPC-2":
                    parts += shown
                else:
                    folded += shown
    parts.append("¹ on fewer noises: the first 32.")
    parts += ["<details><summary>The other solvers</summary>", *folded, "</details>"]
    if "fashion-mnist" in results:
        words = "Fréchet distance of the same samples of fashion-mnist, high where they are few"
        parts += [f"<details><summary>{words}</summary>", distances(results["fashion-mnist"]), "</details>"]
    return "\n\n".join(parts)


ALIGN_YOUR_STEPS = {
    "Align Your Steps, SD 1.5": [999, 850, 736, 645, 545, 455, 343, 233, 124, 24],
    "Align Your Steps, SDXL": [999, 845, 730, 587, 443, 310, 193, 116, 53, 13],
}
VIDEO = [700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034]
"""Align Your Steps' noise levels for Stable Video Diffusion."""


def place_on_latents() -> None:
    """Write the timesteps of the default for latents, and how far that for video is from Align Your Steps."""
    process = fs.processes.VPDiscrete.from_betas(0.00085, 0.012, schedule="scaled_linear")
    timesteps: dict[str, list[int]] = {}
    for steps in (8, 10, 20):
        for name, solver in (("UniPC-2, the default", fs.UniPC(2)), ("DPM++2", fs.DPMSolverPP(2)), ("DDIM", fs.DDIM())):
            grid = fs.grids.optimized(process, solver, steps, spectrum="latents", floor=0.0045)
            timesteps[f"{steps} | {name}"] = [round(1000.0 * t - 1.0) for t in grid.times[:-1].tolist()]
    video, published = fs.processes.EDM(0.002, 700.0), -np.log(VIDEO)
    grids = {
        "UniPC-2, `spectrum=video`": fs.grids.optimized(video, fs.UniPC(2), 10, spectrum="video", floor=0.0045),
        "Karras et al.'s levels": fs.grids.karras(video, 10),
    }
    apart = {
        name: float(np.sqrt(((grid.half_logsnr[:-1].numpy() - published) ** 2).mean())) for name, grid in grids.items()
    }
    figures.write("latents", {"timesteps": timesteps, "video": apart})


def stable_diffusion() -> str:
    """Return the timesteps of the default for latents, beside those of Align Your Steps."""
    found = figures.read("latents")
    lines = ["| steps | grid | timesteps |", "|---:|---|---|"]
    lines += [f"| 10 | {name} | {' '.join(map(str, steps))} |" for name, steps in ALIGN_YOUR_STEPS.items()]
    lines += [f"| {name} | {' '.join(map(str, steps))} |" for name, steps in found["timesteps"].items()]
    lines += ["", "Stable Video Diffusion in 10 steps, root mean square distance in λ to Align Your Steps' levels:", ""]
    return "\n".join([*lines, *(f"- {name}: {apart:.2f}" for name, apart in found["video"].items())])


def plot() -> None:
    """Draw measured over likely errors, a panel for each model."""
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
            axes.set(xscale="log", yscale="log", title=model, xlabel="likely error", ylabel="measured error")
            plain_ticks(axes.xaxis, axes.yaxis)
            axes.legend(fontsize=8)


if __name__ == "__main__":
    place_on_latents()
    plot()
    print(report())

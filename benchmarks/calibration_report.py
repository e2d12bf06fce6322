"""Tables and picture of benchmarks/calibration.py, from the figures that it kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import figures

from fewstep.report.style import drawing

__all__ = ["OWN", "PUBLISHED", "best", "report", "write_report"]

CALLS = (3, 4, 5, 6, 8, 10, 15, 20)
PUBLISHED = "UniPC-3, published p=1"
OWN = ("optimised p=1", "optimised p=2", "uniform λ to 2.5")
"""Grids that are not among the usual ones."""


def write_report(cache: Path, models: list[str]) -> None:
    """Write results/calibration.json and .png."""
    found = {model: {path.stem: json.loads(path.read_text()) for path in files(cache / model)} for model in models}
    figures.write("calibration", found)
    plot(found, figures.RESULTS / "calibration.png")
    print(report())


def report() -> str:
    """Return the tables of the models that were measured."""
    found, parts = figures.read("calibration"), []
    for model, kept in found.items():
        parts += [f"### {model}: error", errors(kept)]
        parts += [f"### {model}: error on fresh noises", fresh(kept)]
        parts += [f"### {model}: error on both sets of noises together", pooled(kept)]
        if "setting-objective=local" in kept:
            parts += [f"### {model}: what each setting does, at 6 calls", settings(kept)]
        parts += [f"### {model}: Fréchet distance", distances(kept)] if f"fd-6-{PUBLISHED}" in kept else []
    parts += ["### Time of a calibration for 8 calls, 64 noises", times(found)]
    return "\n\n".join(parts)


def files(folder: Path) -> list[Path]:
    """Return the files of figures, without the recipes."""
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith("recipe"))


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a markdown table, numbers to the right."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] + ["---:"] * (len(head) - 1), *rows])


def untuned_of(kept: dict[str, Any], calls: int) -> dict[str, list[float]]:
    """Return the errors of all untuned samplers."""
    found = (value for name, value in kept.items() if name.startswith(f"untuned-{calls}-"))
    return {sampler: error for errors in found for sampler, error in errors.items()}


def best(untuned: dict[str, list[float]]) -> str:
    """Return the name of the best untuned sampler."""
    return min(untuned, key=lambda name: untuned[name][0])


def spelled(error: list[float]) -> str:
    """Return an error with its interval."""
    value, low, high = error
    return f"{value:.4f} ({low:.4f} … {high:.4f})"


def errors(kept: dict[str, Any]) -> str:
    """Return errors over calls, and how many times lower than the best untuned sampler's they are."""
    rows = []
    for calls in CALLS:
        untuned = untuned_of(kept, calls)
        if not untuned:
            continue
        peers = {name: error for name, error in untuned.items() if not name.endswith(OWN)}
        name, peer = best(untuned), best(peers)
        row = [str(calls), *(f"{untuned[key][0]:.4f} ({key})" for key in (peer, name))]
        for kind in ("calibrated", "searched"):
            made = kept.get(f"{kind}-{calls}")
            gains = (untuned[key][0] / made["error"][0] for key in (peer, name)) if made else ()
            row.append(f"{spelled(made['error'])}: {' / '.join(f'{gain:.1f}' for gain in gains)} times" if made else "")
        made, other = kept.get(f"searched-{calls}"), kept.get(f"transferred-searched-{calls}")
        row.append(f"{made['calls'] / 1000:.0f}k" if made else "")
        row.append(f"{other['error'][0]:.4f}" if other else "")
        rows.append(row)
    head = ["calls", "best of the usual grids", "best of all, fewstep's own grids included", "calibrated", "searched"]
    return table([*head, "network calls of the search", "the other model's recipe"], rows)


def fresh(kept: dict[str, Any]) -> str:
    """Return errors on fresh noises: RMSE with interval, and the median noise's."""
    rows = []
    for calls in CALLS:
        made = kept.get(f"fresh-{calls}")
        if not made:
            continue
        *untuned, calibrated, searched = made.values()
        pair = (untuned[0], untuned[-1])
        names = [name for name in made if name not in ("calibrated", "searched")]
        row = [str(calls), *(f"{spelled(v[:3])} {name}" for name, v in zip((names[0], names[-1]), pair, strict=True))]
        for own in (calibrated, searched):
            gains = [" / ".join(f"{value[k] / own[k]:.1f}" for value in pair) for k in (0, 3)]
            row += [f"{spelled(own[:3])}: {gains[0]} times", f"{own[3]:.4f}: {gains[1]} times"]
        rows.append(row)
    head = ["calls", "best of the usual grids", "best of all, fewstep's own grids included"]
    return table([*head, "calibrated", "its median noise", "searched", "its median noise"], rows)


def pooled(kept: dict[str, Any]) -> str:
    """Return RMSE over the 64 and the 256 noises together, of the best untuned sampler and the fitted plans."""
    rows = []
    for calls in (n for n in CALLS if f"fresh-{n}" in kept):
        made, untuned = kept[f"fresh-{calls}"], untuned_of(kept, calls)
        name = best(untuned)
        first = {kind: kept[f"{kind}-{calls}"]["error"][0] for kind in ("calibrated", "searched")}
        first[name] = untuned[name][0]
        error = {key: ((64 * first[key] ** 2 + 256 * made[key][0] ** 2) / 320) ** 0.5 for key in first}
        gains = [f"{error[kind]:.4f}: {error[name] / error[kind]:.1f} times" for kind in ("calibrated", "searched")]
        rows.append([str(calls), f"{error[name]:.4f} ({name})", *gains])
    return table(["calls", "best untuned of all", "calibrated", "searched"], rows)


def settings(kept: dict[str, Any]) -> str:
    """Return what num, history, objective and guidance do."""
    untuned = untuned_of(kept, 6)
    lines = [["UniPC-3, quadratic, untuned", spelled(untuned["UniPC-3, quadratic"]), ""]]
    for name, made in kept.items():
        if name.startswith("setting-"):
            shown = spelled(made["error"])
            lines.append([name.removeprefix("setting-"), shown, f"{made['calls'] / 1000:.1f}k"])
    order = {"num": 0, "history": 1, "analytic": 2, "loss": 3, "objective": 4}
    lines[1:] = sorted(lines[1:], key=lambda row: (order[row[0].partition("=")[0]], len(row[0]), row[0]))
    text = table(["setting", "error (95 %)", "network calls it took"], lines)
    own = kept["calibrated-6"]["error"][0]
    start = [untuned[f"{solver}, quadratic"][0] for solver in ("UniPC-3", "DPM++2")]
    guided = [["1", *(f"{value:.4f}" for value in (*start, own, own))]]
    for name, made in kept.items():
        if name.startswith("guidance-"):
            values = [*made["untuned"].values(), made["unguided"], made["calibrated"]["error"]]
            guided.append([name.removeprefix("guidance-"), *(f"{value[0]:.4f}" for value in values)])
    head = ["guidance scale", "UniPC-3", "DPM++2", "recipe of scale 1", "calibrated there"]
    return text + ("\n\n" + table(head, guided) if len(guided) > 1 else "")


def distances(kept: dict[str, Any]) -> str:
    """Return Fréchet distances over calls."""
    rows = []
    for calls in CALLS:
        made = {name.split("-", 2)[2]: value for name, value in kept.items() if name.startswith(f"fd-{calls}-")}
        if not made:
            continue
        name = best(untuned_of(kept, calls))
        low = min(made.values())
        columns = (PUBLISHED, name, "calibrated", "searched")
        shown = [
            "" if key not in made else f"**{made[key]:.4f}**" if made[key] == low else f"{made[key]:.4f}"
            for key in columns
        ]
        rows.append([str(calls), shown[0], f"{shown[1]} ({name})", *shown[2:]])
    return table(["calls", "published", "untuned of the least error", "calibrated", "searched"], rows)


def times(found: dict[str, dict[str, Any]]) -> str:
    """Return seconds and network calls of calibrations."""
    rows = [
        [f"{model}, {kind}", f"{made['calls'] / 1000:.1f}k", f"{made['seconds']:.0f}"]
        for model, kept in found.items()
        for kind in ("calibrated", "searched")
        if (made := kept.get(f"time-8-{kind}"))
    ]
    return table(["plan", "network calls", "seconds"], rows)


def plot(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw errors over calls."""
    with drawing(path, 5.5 * len(found), 4, 1, len(found)) as (_, panels):
        for panel, (model, kept) in zip(panels[0], found.items(), strict=True):
            for label, style, points in series(kept):
                calls, values, low, high = zip(*points, strict=True)
                spread = [
                    [a - b for a, b in zip(values, low, strict=True)],
                    [b - a for a, b in zip(values, high, strict=True)],
                ]
                panel.errorbar(calls, values, spread, fmt=style, ms=4, lw=1.4, capsize=2, label=label)
                panel.set_xticks(calls, [str(n) for n in calls])
            panel.set(title=model, xlabel="network calls", ylabel="RMSE to the reference", yscale="log")
        panels[0][0].legend()


def series(kept: dict[str, Any]) -> list[tuple[str, str, list[tuple[float, ...]]]]:
    """Return label, style and points (calls, error, low, high) of each curve."""
    untuned = {n: found for n in CALLS if (found := untuned_of(kept, n))}
    curves = [
        ("published grid", "C7s--", [(n, *found[PUBLISHED]) for n, found in untuned.items() if PUBLISHED in found]),
        ("best untuned", "C0o-", [(n, *found[best(found)]) for n, found in untuned.items()]),
    ]
    for kind, label, style in (
        ("calibrated", "calibrated", "C1^-"),
        ("searched", "calibrated, times searched", "C3D-"),
    ):
        points = [(n, *kept[f"{kind}-{n}"]["error"]) for n in CALLS if f"{kind}-{n}" in kept]
        curves += [(label, style, points)] if points else []
    return curves

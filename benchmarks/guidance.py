"""Guidance in an interval of noise levels against guidance all along, on the embedded model.

    python -W ignore benchmarks/guidance.py [--num 300]

UniPC-2 in 8 calls on the recommended grid, with classes in turn, in bfloat16 (the state is float32), from the seeds
0, 1, …. The distance is the Fréchet distance of the embedded features to Fashion-MNIST's training images; evaluations
are those of the network for one image. ± is twice the bootstrap's standard deviation: of the distance, and of its
difference from guidance all along at the same scale, the same seeds drawn on both sides.

The features of each cell are kept under build/ and not computed again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import figures
import numpy as np
import torch

import fewstep as fs
from fewstep.recommended import recommended

CALLS, BATCH, RESAMPLES = 8, 100, 100
CELLS: list[tuple[float, tuple[float, float] | None]] = [
    (1.0, None),
    (2.0, None),
    (2.0, (0.2, 2.0)),
    (3.0, None),
    (3.0, (0.2, 2.0)),
]
CACHE = Path(__file__).resolve().parents[1] / "build" / "guidance"


def words(scale: float, interval: tuple[float, float] | None) -> str:
    """Return the guidance as ``--guidance`` takes it."""
    return f"{scale:g}" if interval is None else f"{scale:g}:interval={interval[0]:g}:{interval[1]:g}"


def features_of(scale: float, interval: tuple[float, float] | None, num: int) -> np.ndarray:
    """Return the features of ``num`` images, rounded to 256 levels as images are, [num, d]."""
    path = CACHE / f"{words(scale, interval).replace(':', '-')}-{num}.npy"
    if path.exists():
        return np.load(path)
    model = fs.zoo.load("fashion-mnist", guidance_scale=words(scale, interval), dtype=torch.bfloat16)
    extractor = fs.metrics.features("fashion-mnist")
    solver, grid = sampler(model)
    found, began = [], time.perf_counter()
    for start in range(0, num, BATCH):
        seeds = range(start, start + BATCH)
        x_0 = fs.sample(model, solver, grid, seeds=seeds, cond=torch.tensor(seeds) % 10)
        found.append(extractor(fs.metrics.from_uint8(fs.metrics.to_uint8(x_0))))
    CACHE.mkdir(parents=True, exist_ok=True)
    np.save(path, torch.cat(found).numpy())
    print(words(scale, interval), f"{time.perf_counter() - began:.0f} s", flush=True)
    return np.load(path)


def sampler(model: fs.DataPredictor) -> tuple[fs.Solver, fs.TimeGrid]:
    """Return the recommended solver and grid."""
    rule = recommended(model.process, CALLS)
    solver = fs.solvers.named(rule.solver)
    return solver, fs.grids.named(rule.grid, model.process, CALLS, "zero", solver=solver)


def distance(features: np.ndarray) -> float:
    """Return the Fréchet distance to the training images."""
    return fs.metrics.frechet_distance(fs.metrics.moments_of(torch.from_numpy(features)), fs.metrics.reference())


def measure(num: int) -> list[dict[str, Any]]:
    """Return a row for each cell."""
    rows, all_along = [], {}
    for scale, interval in sorted(CELLS, key=lambda cell: (cell[0], cell[1] is not None, cell[1] or ())):
        found = features_of(scale, interval, num)
        model = fs.zoo.load("fashion-mnist", guidance_scale=words(scale, interval))
        plan = sampler(model)[0].plan(sampler(model)[1])
        drawn = np.random.default_rng(0).integers(0, len(found), (RESAMPLES, len(found)))
        draws = np.array([distance(found[row]) for row in drawn])
        row = {
            "guidance": words(scale, interval),
            "scale": scale,
            "evaluations": fs.guidance.evaluations(plan, model),
            "distance": distance(found),
            "error": 2.0 * float(draws.std()),
        }
        if interval is None:
            all_along[scale] = row["distance"], draws
        else:
            plain, plain_draws = all_along[scale]
            row["difference"] = row["distance"] - plain
            row["difference_error"] = 2.0 * float((draws - plain_draws).std())
        rows.append(row)
    return rows


def report() -> str:
    """Return the table."""
    found = figures.read("guidance")
    lines = ["| guidance | evaluations | Fréchet distance | against all along |", "|---|---|---|---|"]
    for row in found.get("rows", []):
        less = "" if "difference" not in row else f"{row['difference']:+.2f} ± {row['difference_error']:.2f}"
        lines.append(
            f"| `{row['guidance']}` | {row['evaluations']} | {row['distance']:.2f} ± {row['error']:.2f} | {less} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--num", type=int, default=300)
    asked = parser.parse_args()
    with torch.inference_mode():
        for cell in CELLS:
            features_of(*cell, asked.num)
        figures.write("guidance", {"num": asked.num, "rows": measure(asked.num)})
    print(report())


if __name__ == "__main__":
    main()

"""What Skip-Tuning does to the Fréchet distance, over ρ of the deepest skip, calls and solvers.

    python -W ignore benchmarks/skip_tuning.py [--num 5000] [--threads 1]

The embedded model (in bfloat16; the state is float32), with classes in turn and seeds from 0 on, is sampled on the
uniform λ grid to the noise-free end with ρ linear from ρ_bottom (deepest skip) to 1 (outermost). SA-Solver adds noise,
τ = 0.4, where σ/α is in [0.05, 1]. The distance is that
of the embedded features to Fashion-MNIST's training images. ± is twice the bootstrap's standard deviation: of the
distance itself, and of its difference from ρ = 1 with the same seeds drawn on both sides.

The features of each cell are kept under build/ and not computed again; two runs at once share the cells.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import torch

import fewstep as fs

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

CALLS = (5, 8, 10, 20, 40)
RHO = (1.0, 0.9, 0.8, 0.5, 1.1, 0.65)
SOLVERS = {
    "UniPC-3": fs.UniPC(3),
    "SA(3,3), τ=0.4": fs.SASolver(3, 3, tau=fs.tau.window(0.4, 0.05, 1.0), few_step=True),
}
BATCH = 100
RESAMPLES = 100
FOLDER = Path(__file__).parent / "results"
CACHE = Path(__file__).resolve().parents[1] / "build" / "skip_tuning"


def cells() -> Iterator[tuple[str, int, float, Path]]:
    """Yield solver, calls, ρ_bottom and the file of the features, the most wanted first."""
    for calls in CALLS:
        for rho in RHO:
            for number, solver in enumerate(SOLVERS):
                yield solver, calls, rho, CACHE / f"{number}-{calls}-{rho}.npy"


def features(model: fs.Denoiser, extractor: fs.metrics.Extractor, solver: str, calls: int, num: int) -> np.ndarray:
    """Return the features of the images of seeds 0 … num − 1, rounded to 256 levels as images are, [num, d]."""
    grid = fs.grids.uniform_logsnr(model.process, calls, end="zero")
    assert SOLVERS[solver].plan(grid).nfe == calls
    found = []
    for start in range(0, num, BATCH):
        seeds = range(start, min(start + BATCH, num))
        x_0 = fs.sample(model, SOLVERS[solver], grid, seeds=seeds, cond=torch.tensor(seeds) % 10)
        pixels = x_0.clamp(-1.0, 1.0).add(1.0).mul(127.5).round().to(torch.uint8).movedim(1, -1)
        found.append(extractor(fs.metrics.from_uint8(pixels)))
    return torch.cat(found).numpy()


def compute(num: int) -> None:
    """Compute the features of every cell that no other run has begun."""
    model = fs.zoo.load("fashion-mnist", dtype=torch.bfloat16)
    extractor = fs.metrics.features("fashion-mnist")
    CACHE.mkdir(parents=True, exist_ok=True)
    for solver, calls, rho, path in cells():
        claim = path.with_suffix(".claim")
        if path.exists() or claim.exists():
            continue
        claim.touch()
        try:
            with fs.skip.tuned(model, bottom=rho):
                np.save(path, features(model, extractor, solver, calls, num))
        finally:
            claim.unlink()
        print(solver, calls, rho, flush=True)


def distance(found: np.ndarray, reference: fs.metrics.Moments) -> float:
    """Return the Fréchet distance of features to the training images."""
    return fs.metrics.frechet_distance(fs.metrics.moments_of(torch.from_numpy(found)), reference)


def measure() -> dict[str, list[dict[str, float]]]:
    """Return, for each solver, a row for each cell whose features are there."""
    reference = fs.metrics.reference()
    rows: dict[str, list[dict[str, float]]] = {solver: [] for solver in SOLVERS}
    plain: dict[tuple[str, int], tuple[float, np.ndarray]] = {}
    for solver, calls, rho, path in cells():
        if not path.exists():
            continue
        found = np.load(path)
        drawn = np.random.default_rng(0).integers(0, len(found), (RESAMPLES, len(found)))
        value, resampled = distance(found, reference), np.array([distance(found[i], reference) for i in drawn])
        if rho == 1.0:
            plain[solver, calls] = value, resampled
        row = {"calls": calls, "rho": rho, "num": len(found), "fd": value, "fd_pm": 2.0 * float(resampled.std())}
        if (solver, calls) in plain:
            base, base_resampled = plain[solver, calls]
            row |= {"change": value - base, "change_pm": 2.0 * float((resampled - base_resampled).std())}
        rows[solver].append(row)
    return rows


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    """Return the markdown table, the lowest of each row in bold, * where the change from ρ = 1 exceeds its ±."""
    order = sorted(RHO)
    lines = [
        "| solver | calls | " + " | ".join(f"ρ = {rho}" for rho in order) + " |",
        "|---|---:|" + "---:|" * len(RHO),
    ]
    for solver, found in rows.items():
        for calls in CALLS:
            here = {row["rho"]: row for row in found if row["calls"] == calls}
            best = min((row["fd"] for row in here.values()), default=None)
            texts = [text(here.get(rho), best) for rho in order]
            if here:
                lines.append(f"| {solver} | {calls} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def text(row: dict[str, float] | None, best: float | None) -> str:
    """Return a cell of the table."""
    if row is None:
        return ""
    value = f"{row['fd']:.4f}"
    clear = "*" if abs(row.get("change", 0.0)) > row.get("change_pm", np.inf) else ""
    return f"{f'**{value}**' if row['fd'] == best else value} ± {row['fd_pm']:.4f}{clear}"


def plot(rows: dict[str, list[dict[str, float]]]) -> None:
    """Draw the change from ρ = 1, relative, over ρ."""
    figure, panels = plt.subplots(1, len(rows), figsize=(10, 3.8), layout="constrained", sharey=True)
    for panel, (solver, found) in zip(panels, rows.items(), strict=True):
        for calls in CALLS:
            here = sorted((row for row in found if row["calls"] == calls and "change" in row), key=lambda r: r["rho"])
            base = next((row["fd"] for row in here if row["rho"] == 1.0), 1.0)
            if len(here) > 1:
                panel.errorbar(
                    [row["rho"] for row in here],
                    [1.0 + row["change"] / base for row in here],
                    [row["change_pm"] / base for row in here],
                    marker="o", ms=3, lw=1.2, capsize=2, label=f"{calls} calls",
                )  # fmt: skip
        panel.axhline(1.0, color="0.6", lw=0.8)
        panel.set(title=solver, xlabel="ρ of the deepest skip", yscale="log")
    panels[0].set_ylabel("Fréchet distance, relative to ρ = 1")
    panels[-1].legend()
    figure.savefig(FOLDER / "skip_tuning.png", dpi=120)


def main() -> None:
    """Compute what is missing, then write the table, its figures and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    compute(arguments.num)
    rows = measure()
    (FOLDER / "skip_tuning.json").write_text(json.dumps(rows, indent=1) + "\n")
    (FOLDER / "skip_tuning.md").write_text(table(rows) + "\n")
    plot(rows)
    print(table(rows))


if __name__ == "__main__":
    main()

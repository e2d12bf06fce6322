"""What the hooks of Skip-Tuning add to a forward of the embedded network.

    python benchmarks/skip_overhead.py

The same network, called in turn plainly, with ρ from 0.8 to 1 (every skip but the outermost scaled), and with that
only in a window of σ/α (ρ is looked up at the time). Medians of the ratios, each to the plain calls before and
after it, so that a machine that slows down slows both sides. The first call after a change of the hooks is not timed.
"""

from __future__ import annotations

import statistics
import time
from contextlib import AbstractContextManager, nullcontext

import figures
import torch

import fewstep as fs

BATCHES = {1: 300, 16: 100, 64: 40}
WAYS = {
    "ρ = 1": {"bottom": 1.0},
    "ρ = 0.8 … 1": {"bottom": 0.8},
    "ρ = 0.8 … 1, σ/α in 0.05 … 2": {"bottom": 0.8, "sigma_window": (0.05, 2.0)},
}


def seconds(model: fs.DataPredictor, x_t: torch.Tensor, tuning: AbstractContextManager[object]) -> float:
    """Return the time of one call."""
    cond = torch.arange(len(x_t)) % 10
    t = torch.tensor(0.5, dtype=torch.float64)
    with tuning, torch.inference_mode():
        model(x_t, t, cond)
        began = time.perf_counter()
        model(x_t, t, cond)
        return time.perf_counter() - began


def overheads(model: fs.DataPredictor, batch: int, pairs: int) -> dict[str, float]:
    """Return the plain call in ms, and by how many percent each way is slower."""
    x_t = torch.randn(batch, *model.shape, generator=torch.Generator().manual_seed(0))
    plain: list[float] = []
    ratios: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(pairs):
        for way, settings in WAYS.items():
            before = seconds(model, x_t, nullcontext())
            tuned = seconds(model, x_t, fs.skip.tuned(model, **settings))
            after = seconds(model, x_t, nullcontext())
            plain.append(before)
            ratios[way].append(2.0 * tuned / (before + after))
    return {
        "plain_ms": 1e3 * statistics.median(plain),
        **{way: 100.0 * (statistics.median(found) - 1.0) for way, found in ratios.items()},
    }


def report() -> str:
    """Return the table."""
    lines = ["| batch | plain forward | " + " | ".join(WAYS) + " |", "|---:|---:|" + "---:|" * len(WAYS)]
    for batch, row in figures.read("skip_overhead").items():
        shown = " | ".join(f"{row[way]:+.1f} %" for way in WAYS)
        lines.append(f"| {batch} | {row['plain_ms']:.1f} ms | {shown} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the figures."""
    model = fs.zoo.load("fashion-mnist")
    found = {batch: overheads(model, batch, pairs) for batch, pairs in BATCHES.items()}
    figures.write("skip_overhead", found)
    print(report())


if __name__ == "__main__":
    main()

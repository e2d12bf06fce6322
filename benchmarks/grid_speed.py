"""Time to optimise a grid, beside the published method in the same run.

python benchmarks/grid_speed.py
"""

from __future__ import annotations

import json
import statistics
import time
import warnings
from pathlib import Path

import fewstep as fs

STEPS = (5, 6, 8, 10, 15, 20)
REPEATS = 7
PUBLISHED_UP_TO = 8  # on this objective trust-constr takes half a minute at N = 20
SOLVERS = {
    "UniPC(3, exact), no corrector": fs.UniPC(3, "exact", corrector=False),
    "UniPC(3)": fs.UniPC(3),
    "SA(3, 4), τ = 1": fs.SASolver(3, 4, tau=1.0),
    "Heun": fs.Heun(),
}


def milliseconds(process: fs.processes.Process, solver: fs.Solver, steps: int, power: float, **settings: str) -> float:
    """Return how long one optimisation takes."""
    began = time.perf_counter()
    fs.grids.optimized(process, solver, steps, error_power=power, **settings)
    return (time.perf_counter() - began) * 1e3


def main() -> None:
    """Measure, print the table, and write it down."""
    warnings.simplefilter("ignore")
    process = fs.processes.VPLinear()
    rows, every = [], []
    for name, solver in SOLVERS.items():
        for steps in STEPS:
            for power in (1, 2):
                times = [milliseconds(process, solver, steps, power) for _ in range(REPEATS)]
                every += times
                rows.append({"solver": name, "steps": steps, "p": power, "median": statistics.median(times),
                             "worst": max(times)})  # fmt: skip
                if solver is SOLVERS["UniPC(3, exact), no corrector"] and steps <= PUBLISHED_UP_TO:
                    rows[-1]["trust_constr"] = milliseconds(process, solver, steps, power, method="trust-constr")
    print("| solver | N | p | median, ms | worst, ms | trust-constr, ms |\n|---|---:|---:|---:|---:|---:|")
    for row in rows:
        published = f"{row['trust_constr']:.0f}" if "trust_constr" in row else ""
        print(f"| {row['solver']} | {row['steps']} | {row['p']} | {row['median']:.0f} | {row['worst']:.0f} "
              f"| {published} |")  # fmt: skip
    print(f"over all: median {statistics.median(every):.0f} ms, worst {max(every):.0f} ms")
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "grid_speed.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

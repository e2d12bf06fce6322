"""Time to optimise a grid for a spectrum and for the bound, beside the published method in the same run.

python benchmarks/grid_speed.py
"""

from __future__ import annotations

import statistics
import time
import warnings
from typing import Any

import figures

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


GOALS: dict[str, dict[str, Any]] = {
    "spectrum": {"objective": "spectrum"},
    "bound, p = 1": {"error_power": 1},
    "bound, p = 2": {"error_power": 2},
}


def milliseconds(process: fs.processes.Process, solver: fs.Solver, steps: int, **settings: Any) -> tuple[float, ...]:
    """Return how long one optimisation takes, and how long a core works on it, to three digits."""
    began, worked = time.perf_counter(), time.process_time()
    fs.grids.optimized(process, solver, steps, **settings)
    return tuple(float(f"{1e3 * x:.3g}") for x in (time.perf_counter() - began, time.process_time() - worked))


def report() -> str:
    """Return the table of all optimisations, and that of each solver over all of them."""
    rows = figures.read("grid_speed")
    lines = ["| solver | N | minimised | time, ms | worst | on a core | worst | trust-constr | on a core |"]
    lines.append("|---|---:|---|" + "---:|" * 6)
    for row in rows:
        times = [f(row[key]) for key in ("wall", "work") for f in (statistics.median, max)]
        cells = [f"{x:.0f}" for x in (*times, *row.get("trust_constr", ()))]
        cells += [""] * (6 - len(cells))
        lines.append(f"| {row['solver']} | {row['steps']} | {row['goal']} | " + " | ".join(cells) + " |")
    lines += ["", "| over N = 5 … 20 | minimised | median, ms | worst | median on a core | worst on a core |"]
    lines.append("|---|---|" + "---:|" * 4)
    for name in (*SOLVERS, "all"):
        for goal in GOALS:
            chosen = [row for row in rows if name in (row["solver"], "all") and row["goal"] == goal]
            some = [[x for row in chosen for x in row[key]] for key in ("wall", "work")]
            cells = [f"{f(values):.0f}" for values in some for f in (statistics.median, max)]
            lines.append(f"| {name} | {goal} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and write it down."""
    warnings.simplefilter("ignore")
    process = fs.processes.VPLinear()
    rows = []
    for name, solver in SOLVERS.items():
        fs.grids.optimized(process, solver, 5)
        for steps in STEPS:
            for goal, settings in GOALS.items():
                timed = [milliseconds(process, solver, steps, **settings) for _ in range(REPEATS)]
                walls, works = zip(*timed, strict=True)
                rows.append({"solver": name, "steps": steps, "goal": goal, "wall": walls, "work": works})
                if "bound" in goal and solver is SOLVERS["UniPC(3, exact), no corrector"] and steps <= PUBLISHED_UP_TO:
                    rows[-1]["trust_constr"] = milliseconds(process, solver, steps, method="trust-constr", **settings)
    figures.write("grid_speed", rows)
    print(report())


if __name__ == "__main__":
    main()

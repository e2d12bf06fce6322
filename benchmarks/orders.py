"""Orders chosen for each step together with the grid, against the usual 1, 2, 3, …, 3, 2, 1, on real networks.

    python -W ignore benchmarks/orders.py [--noises 12] [--model NAME]

UniPC and DPM-Solver++ of order 3 at 5 and 8 calls, to the noise-free end: the grid that is optimised for the usual
orders, and orders and grid that are chosen together, by the error on a spectrum of images and by the published bound
(p = 1).
The error is the root mean square distance to the solution from the same noise (150 calls of a fourth-order method);
the ratio's interval is that of 1000 bootstrap draws of the noises, 95 %.
"""

from __future__ import annotations

import argparse
from typing import Any

import figures
import numpy as np
import torch
from time_steps import MODELS, available, samples

import fewstep as fs
from fewstep.solvers import optimized_orders

CALLS, FINE, RESAMPLES = (5, 8), 150, 1000
SOLVERS = {"UniPC-3": fs.UniPC(3), "DPM++3": fs.DPMSolverPP(3)}


def measure(name: str, noises: int) -> list[dict[str, Any]]:
    """Return a row for each solver, number of calls and objective."""
    model = MODELS[name]()
    process, conditional = model.process, bool(model.num_classes)
    x_T = fs.initial_state(fs.grids.uniform_logsnr(process, 2), model.shape, range(noises))
    fine = fs.grids.uniform_logsnr(process, FINE, end="zero")
    exact = samples(model, fs.SASolver(4, 4, tau=0.0, few_step=True), fine, x_T, conditional)

    def squares(solver: fs.Solver, grid: fs.TimeGrid) -> np.ndarray:
        made = samples(model, solver, grid, x_T, conditional)
        return (made - exact).square().flatten(1).mean(1).double().numpy()

    rows = []
    drawn = np.random.default_rng(0).integers(0, noises, (RESAMPLES, noises))
    for label, solver in SOLVERS.items():
        for calls in CALLS:
            grid = fs.grids.optimized(process, solver, calls, end="zero")
            usual = squares(solver, grid)
            for objective in ("spectrum", "bound"):
                usual_grid = fs.grids.optimized(process, solver, calls, end="zero", objective=objective)
                chosen, its_grid = optimized_orders(process, solver, calls, end="zero", objective=objective)
                found = squares(chosen, its_grid)
                ratios = np.sqrt(found[drawn].mean(1) / usual[drawn].mean(1))
                rows.append(
                    {
                        "solver": label,
                        "calls": calls,
                        "objective": objective,
                        "orders": str(chosen.orders),
                        "predicted": its_grid.report.after / usual_grid.report.after,
                        "ratio": float(np.sqrt(found.mean() / usual.mean())),
                        "interval": np.quantile(ratios, [0.025, 0.975]).tolist(),
                    }
                )
    return rows


def report() -> str:
    """Return the table."""
    results = figures.read("orders")
    names = list(results)
    lines = [
        "| solver | calls | chosen by | orders | predicted | " + " | ".join(names) + " |",
        "|---|---|---|---|---|" + "---|" * len(names),
    ]
    for rows in zip(*results.values(), strict=True):
        first = rows[0]
        cells = [f"{row['ratio']:.2f} ({row['interval'][0]:.2f} to {row['interval'][1]:.2f})" for row in rows]
        words = [first["solver"], str(first["calls"]), first["objective"], first["orders"], f"{first['predicted']:.2f}"]
        lines.append("| " + " | ".join([*words, *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--noises", type=int, default=12)
    parser.add_argument("--model", choices=MODELS)
    asked = parser.parse_args()
    results = figures.read("orders")
    with torch.inference_mode():
        for name in [asked.model] if asked.model else available():
            results[name] = measure(name, asked.noises)
            figures.write("orders", results)
    print(report())


if __name__ == "__main__":
    main()

"""When the predicted error of a grid may be trusted: predictions against measured errors over random grids.

    python -W ignore benchmarks/bound_trust.py [--grids 60] [--noises 8] [--model NAME]

Random grids of 8 calls of UniPC-2 to the noise-free end, on the embedded model and, where the shared folder is present,
lfw32-ddpm: the last time before the end has λ from 1.5 to 4.5, and the steps in λ are log-normal (the deviation of
their logarithm is 0.2, 0.5 or 1). The error is the root mean square distance to the solution from the same noise, by
150 calls of a fourth-order method.

Predictions: the published bound for p = 1 and 2 and for a measured profile ε̃(λ), the spectral objective, and the likely
error of the spectrum. The profile is the root mean square of D(x + δ) − D(x) along the solution, δ of 0.1·σ.
The rank correlation is Spearman's; its interval is that of 1000 bootstrap draws of the grids, 95 %.
"""

from __future__ import annotations

import argparse
from typing import Any

import figures
import numpy as np
import torch
from scipy.stats import rankdata, spearmanr
from time_steps import MODELS, available, samples
from torch import Tensor

import fewstep as fs
from fewstep.grids.bound import Bound
from fewstep.grids.spectral import SpectralError
from fewstep.report.style import drawing
from fewstep.spectra import named

CALLS, FINE = 8, 150
SOLVER = fs.UniPC(2)
SPREADS = (0.2, 0.5, 1.0)
PERTURBED = 0.1
RESAMPLES = 1000
PREDICTIONS = ("bound, p = 1", "bound, p = 2", "bound, measured ε̃", "spectrum", "spectrum, likely")


def random_grids(process: fs.processes.Process, count: int) -> Tensor:
    """Return the times of random grids, [count, CALLS + 1]."""
    drawn = np.random.default_rng(0)
    first = float(process.half_logsnr(process.t_max))
    rows = []
    for i in range(count):
        steps = np.exp(SPREADS[i % len(SPREADS)] * drawn.standard_normal(CALLS - 1))
        last = drawn.uniform(1.5, 4.5)
        level = first + (last - first) * np.concatenate([[0.0], steps.cumsum() / steps.sum()])
        times = process.time(torch.from_numpy(level))
        times[0] = process.t_max
        rows.append(torch.cat([times, torch.zeros(1, dtype=torch.float64)]))
    return torch.stack(rows)


def profile(model: fs.DataPredictor, x_T: Tensor, cond: Tensor | None) -> list[tuple[float, float]]:
    """Return pairs (λ, ε̃): how far D moves where the state of the solution is off by a part of σ."""
    process, pairs = model.process, []
    arguments = () if cond is None else (cond,)
    generator = torch.Generator().manual_seed(1)
    grid = fs.grids.uniform_logsnr(process, 16, end="zero")

    def ask(step: int, t: Tensor, x_t: Tensor, x0: Tensor) -> None:
        off = PERTURBED * float(process.sigma(t)) * torch.randn(x_t.shape, generator=generator)
        moved = model(x_t + off, t, *arguments) - model(x_t.clone(), t, *arguments)
        if not grid.ends_at_zero or step + 1 < grid.steps:
            pairs.append((float(process.half_logsnr(t)), float(moved.square().mean().sqrt())))

    fs.execute(fs.UniPC(3).plan(grid), model, x_T, cond=cond, callback=ask)
    return pairs


def measure(name: str, count: int, noises: int) -> dict[str, Any]:
    """Return errors, predictions, and rank correlations with their intervals."""
    model = MODELS[name]()
    process, conditional = model.process, bool(model.num_classes)
    x_T = fs.initial_state(fs.grids.uniform_logsnr(process, 2), model.shape, range(noises))
    pairs = profile(model, x_T, torch.arange(noises) % 10 if conditional else None)
    fine = fs.grids.uniform_logsnr(process, FINE, end="zero")
    exact = samples(model, fs.SASolver(4, 4, tau=0.0, few_step=True), fine, x_T, conditional)
    times = random_grids(process, count)
    errors = []
    for row in times:
        made = samples(model, SOLVER, fs.TimeGrid(process, row), x_T, conditional)
        errors.append(float((made - exact).square().mean().sqrt()))
    spectral = SpectralError(process, SOLVER, named("pixels"))
    predicted = [
        *(Bound(process, SOLVER, power, to_zero=True)(times) for power in (1.0, 2.0, pairs)),
        spectral(times),
        spectral.likely(times),
    ]
    rows = {key: values.tolist() for key, values in zip(PREDICTIONS, predicted, strict=True)}
    return {
        "errors": errors,
        "profile": pairs,
        "predictions": rows,
        "correlations": {key: correlation(errors, values) for key, values in rows.items()},
        "calm": {key: correlation(errors[::3], values[::3]) for key, values in rows.items()},
    }


def correlation(errors: list[float], predicted: list[float]) -> list[float]:
    """Return Spearman's rank correlation with the ends of its interval."""
    errors, predicted = np.array(errors), np.array(predicted)
    drawn = np.random.default_rng(0).integers(0, len(errors), (RESAMPLES, len(errors)))
    found = [spearmanr(errors[row], predicted[row]).statistic for row in drawn]
    low, high = np.quantile(found, [0.025, 0.975])
    return [float(spearmanr(errors, predicted).statistic), float(low), float(high)]


def draw(results: dict[str, Any]) -> None:
    """Draw the ranks of errors over those of predictions, a row of panels for each model."""
    rows, columns = len(results), len(PREDICTIONS)
    path = figures.RESULTS / "bound_trust.png"
    with drawing(path, 2.1 * columns, 2.1 * rows, rows, columns, dpi=80, sharex=True, sharey=True) as (figure, axes):
        for row, (name, found) in zip(np.reshape(axes, (rows, columns)), results.items(), strict=True):
            for ax, (key, values) in zip(row, found["predictions"].items(), strict=True):
                predicted, errors = rankdata(values), rankdata(found["errors"])
                for i, spread in enumerate(SPREADS):
                    size = len(SPREADS)
                    ax.plot(predicted[i::size], errors[i::size], ".", markersize=4, label=f"spread {spread:g}")
                ax.set_title(key, fontsize=8)
            row[0].set_ylabel(f"rank of the error, {name}", fontsize=7)
        np.reshape(axes, -1)[-1].legend(fontsize=6)
        figure.supxlabel("rank of the prediction", fontsize=8)


def report() -> str:
    """Return the table of rank correlations."""
    results = figures.read("bound_trust")
    lines = ["| prediction | " + " | ".join(results) + " |", "|---|" + "---|" * len(results)]
    for key in PREDICTIONS:
        cells = []
        for found in results.values():
            value, low, high = found["correlations"][key]
            calm = found["calm"][key][0]
            cells.append(f"{value:.2f} ({low:.2f} to {high:.2f}); smooth grids {calm:.2f}")
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, draw and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--grids", type=int, default=60)
    parser.add_argument("--noises", type=int, default=8)
    parser.add_argument("--model", choices=MODELS)
    asked = parser.parse_args()
    results = figures.read("bound_trust")
    for name in [asked.model] if asked.model else available():
        results[name] = measure(name, asked.grids, asked.noises)
        figures.write("bound_trust", results)
    draw(results)
    print(report())


if __name__ == "__main__":
    main()

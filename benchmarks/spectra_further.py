"""What else the closed form says: of mixed orders, of analytic starts, and of guided sampling.

    python -W ignore benchmarks/spectra_further.py

Mixed orders: the rule's error of each interval is that of its own rows, so the best order of each is known at once;
grids are made for UniPC of order 2, of order 3, and of the best one in each interval, for the spectra of both networks'
samples. Analytic starts: the first call, on nothing but noise, is replaced by a formula, and the call that is saved
goes to a step more. Guidance: errors to the guided solution, of UniPC-2 on all grids, beside what the closed form
predicts without guidance. The spectra are those that benchmarks/spectra.py keeps in --cache.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import figures
import spectra
import time_steps
import torch
from scipy.stats import spearmanr
from torch import Tensor

import fewstep as fs
from fewstep.grids.spectral import LogSteps, SpectralError, log_newton_search
from fewstep.spectra import Spectrum

__all__ = ["report"]

CALLS, FEW = (5, 6, 8, 10, 15, 20), (5, 6, 8, 10)
NOISES, SCALE, SOLUTION = 16, 3.0, 100


class Mixed(SpectralError):
    """The error with the best order in each interval."""

    def __init__(self, process: fs.processes.Process, spectrum: Spectrum) -> None:
        super().__init__(process, fs.UniPC(2), spectrum)
        self.orders = [SpectralError(process, fs.UniPC(order), spectrum) for order in (1, 2, 3)]

    def terms(self, times: Tensor) -> Tensor:
        """Return what each interval adds with its best order."""
        return torch.stack([measure.terms(times) for measure in self.orders]).amin(0)


def mixed_orders(process: fs.processes.Process, spectrum: Spectrum) -> dict[str, list[float]]:
    """Return the least errors of the rule over ``CALLS``."""
    found: dict[str, list[float]] = {"order 2": [], "order 3": [], "the best in each step": []}
    measure = Mixed(process, spectrum)
    for steps in CALLS:
        two, three = (fs.grids.optimized(process, fs.UniPC(o), steps, spectrum=spectrum, end="zero") for o in (2, 3))
        searched, _ = log_newton_search(measure, [LogSteps(process, steps, process.t_max, process.t_min, to_zero=True)])
        best = min(float(measure(times).min()) for times in (searched, two.times[None], three.times[None]))
        for row, value in zip(found.values(), (two.report.after, three.report.after, best), strict=True):
            row.append(value)
    return found


def errors(denoiser: Any, solver: fs.Solver, grid: fs.TimeGrid, cond: Tensor | None, solution: Tensor) -> float:
    """Return the mean distance of samples from the solution."""
    made = fs.sample(denoiser, solver, grid, seeds=range(NOISES), cond=cond)
    return float((made - solution).square().flatten(1).mean(1).sqrt().mean())


def solved(denoiser: Any, process: fs.processes.Process, cond: Tensor | None) -> Tensor:
    """Return the solutions."""
    fine = fs.grids.uniform_logsnr(process, SOLUTION, end="zero")
    return fs.sample(denoiser, fs.SASolver(4, 4, tau=0.0, few_step=True), fine, seeds=range(NOISES), cond=cond)


def analytic_starts(model: fs.Denoiser, spectrum: Spectrum, cond: Tensor | None) -> dict[str, list[float]]:
    """Return predicted and measured errors over ``FEW`` calls, with a plain first call and with an analytic one."""
    found: dict[str, list[float]] = {}
    solution = solved(model, model.process, cond)
    for name, solver, more in (("a call", fs.UniPC(2), 0), ("a formula", fs.UniPC(2, analytic_first=True), 1)):
        for calls in FEW:
            grid = fs.grids.optimized(model.process, solver, calls + more, spectrum=spectrum, end="zero")
            assert solver.plan(grid).nfe == calls
            likely = float(SpectralError(model.process, solver, spectrum).likely(grid.times[None])[0])
            found.setdefault(f"{name}, predicted", []).append(likely)
            found.setdefault(f"{name}, measured", []).append(errors(model, solver, grid, cond, solution))
    return found


def guidance(spectrum: Spectrum) -> dict[str, dict[str, list[float]]]:
    """Return predicted and measured errors of each grid over ``FEW`` calls, guided."""
    guided = fs.zoo.load("fashion-mnist", guidance_scale=SCALE)
    process, cond = guided.process, torch.arange(NOISES) % 10
    solution, solver = solved(guided, process, cond), fs.UniPC(2)
    measure, found = SpectralError(process, solver, spectrum), {}
    for name, make in spectra.GRIDS.items():
        made = [make(process, solver, calls, spectrum) for calls in FEW]
        found[name] = {
            "predicted": [float(measure.likely(grid.times[None])[0]) for grid in made],
            "measured": [errors(guided, solver, grid, cond, solution) for grid in made],
        }
        print(name, found[name]["measured"], flush=True)
    return found


def main() -> None:
    """Measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, default=Path("build/spectra"))
    args = parser.parse_args()
    found: dict[str, Any] = {"mixed": {}, "analytic": {}}
    for name in time_steps.available():
        model = time_steps.MODELS[name]()
        spectrum = Spectrum.load(args.cache / f"{name}-spectrum.json")
        cond = None if model.num_classes is None else torch.arange(NOISES) % 10
        found["mixed"][name] = mixed_orders(model.process, spectrum)
        found["analytic"][name] = analytic_starts(model, spectrum, cond)
        print(name, found["mixed"][name], found["analytic"][name], flush=True)
        if name == "fashion-mnist":
            found["guided"] = guidance(spectrum)
        figures.write("spectra_further", found)


def _table(head: str, calls: tuple[int, ...], rows: dict[str, list[float]]) -> list[str]:
    lines = [f"| {head} | " + " | ".join(map(str, calls)) + " |", "|---|" + "---:|" * len(calls)]
    return [*lines, *(f"| {name} | " + " | ".join(f"{x:.4f}" for x in row) + " |" for name, row in rows.items())]


def report() -> str:
    """Return the tables."""
    found = figures.read("spectra_further")
    if not found:
        return "Not measured yet."
    mixed = {f"{model}, {name}": row for model, rows in found["mixed"].items() for name, row in rows.items()}
    starts = {f"{model}, {name}": row for model, rows in found["analytic"].items() for name, row in rows.items()}
    guided = {name: row["measured"] for name, row in found["guided"].items()}
    ranks = []
    for place in range(len(FEW)):
        pairs = [(row["predicted"][place], row["measured"][place]) for row in found["guided"].values()]
        ranks.append(float(spearmanr(*zip(*pairs, strict=True)).statistic))
    lines = ["What the rule predicts for UniPC:", "", *_table("order", CALLS, mixed), ""]
    lines += [f"The first prediction, of UniPC-2; {NOISES} noises:", "", *_table("first", FEW, starts), ""]
    lines += [f"Guided by {SCALE:g}, UniPC-2, fashion-mnist; {NOISES} noises:", ""]
    return "\n".join([*lines, *_table("grid", FEW, guided | {"rank correlation with the unguided prediction": ranks})])


if __name__ == "__main__":
    main()

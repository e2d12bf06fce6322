"""``fs.tune`` against the full table of solvers and grids, on two real networks.

    python -W ignore benchmarks/tune.py [--cache FOLDER] [--model NAME] [--report]

The table is what ``fewstep compare`` measures: every deterministic solver on every grid at 6 network calls, and the
solutions in 100 calls. Its calls are counted for the 256 noises that ``compare`` takes by default; the errors here are
of 16 noises (8 on faces), the same for all cells. The recipe of ``fs.tune(model, 6)``, with the default budget, is
measured on them too, and its search has not seen them. Network calls are one a sample, and of the search all are
counted: its solutions, candidates, calibration and verdict.

What was computed is kept, cell by cell, in --cache, and a run goes on where the last one stopped. --report writes the
figures of all that is there.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path
from typing import Any

import figures
import numpy as np
import time_steps
import torch
from torch import Tensor

import fewstep as fs
from fewstep.errors import InputError
from fewstep.metrics.bootstrap import bootstrap_interval

CALLS, EXACT, COMPARED = 6, 100, 256
NOISES = {"fashion-mnist": 16, "lfw32-ddpm": 8}
FIRST = 7_000_000_000
"""The first seed of the table's noises: none of the search."""
SOLVERS = (
    "ddim",
    "heun",
    "dpmpp:order=2",
    "dpmpp:order=3",
    "deis:order=2",
    "deis:order=3",
    "ipndm:order=2",
    "ipndm:order=3",
    "ipndm:order=4",
    "unipc:order=2",
    "unipc:order=3",
    "unipc:order=2,variant=bh1",
    "sa:predictor_order=2,corrector_order=2,few_step=true,tau=0.0",
    "sa:predictor_order=3,corrector_order=3,few_step=true,tau=0.0",
)
GRIDS = (
    "uniform_logsnr:end=zero",
    "uniform_time:end=zero",
    "quadratic_time:end=zero",
    "karras:end=zero",
    "early_end",
    "optimized:end=zero",
    "optimized:spectrum=latents,end=zero",
    "optimized:error_power=1,end=zero",
    "optimized:error_power=2,end=zero",
)


class Subject:
    """A network, the noises of the table and their solutions."""

    def __init__(self, name: str, cache: Path) -> None:
        self.name, self.cache = name, cache / name
        self.cache.mkdir(parents=True, exist_ok=True)
        self.model = time_steps.MODELS[name]()
        self.count = NOISES[name]
        self.seeds = range(FIRST, FIRST + self.count)
        self.cond = None if self.model.num_classes is None else torch.arange(self.count) % self.model.num_classes
        self.opening: Tensor | None = None
        self.exact = self._solutions()

    def drawn(self, plan: fs.Plan) -> Tensor:
        """Return the samples of the table's noises; the call on x_T, which many cells share, is made once."""
        x_T = fs.initial_state(plan.grid, self.model.shape, self.seeds)

        def denoiser(x: Tensor, t: Tensor, *rest: Tensor) -> Tensor:
            if float(t) != self.model.process.t_max or not torch.equal(x, x_T):
                return self.model(x, t, *rest)
            if self.opening is None:
                self.opening = self.model(x, t, *rest)
            return self.opening

        return fs.execute(plan, denoiser, x_T, cond=self.cond)

    def errors(self, plan: fs.Plan) -> np.ndarray:
        """Return the mean squared error of each noise, kept from run to run."""
        file = self.cache / f"{hashlib.sha256(plan.to_json().encode()).hexdigest()[:24]}.npy"
        if not file.exists():
            np.save(file, (self.drawn(plan) - self.exact).double().square().flatten(1).mean(1).numpy())
        return np.load(file)[: self.count]

    def _solutions(self) -> Tensor:
        file = self.cache / "exact.pt"
        if not file.exists():
            grid = fs.grids.uniform_logsnr(self.model.process, EXACT, end="zero")
            torch.save(self.drawn(fs.UniPC(3, variant="exact").plan(grid)), file)
        return torch.load(file)[: self.count]


def cells(process: fs.processes.Process) -> dict[tuple[str, str], fs.Plan]:
    """Return the plans of the table: those of 6 calls."""
    found = {}
    for word in SOLVERS:
        solver = fs.solvers.named(word)
        for grid in GRIDS:
            for steps in range(CALLS, 0, -1):
                try:
                    plan = solver.plan(fs.grids.named(grid, process, steps, solver=solver))
                except InputError:
                    break
                if plan.nfe <= CALLS:
                    if plan.nfe == CALLS:
                        found[word, grid] = plan
                    break
    return found


def summary(squared: np.ndarray) -> tuple[float, float]:
    """Return the root of the mean and of the median: a noise that ends in another picture decides on the mean."""
    return float(np.sqrt(squared.mean())), float(np.sqrt(np.median(squared)))


def gain(best: np.ndarray, tuned: np.ndarray, middle: Any) -> list[float]:
    """Return how many times lower the root of the mean or median is, with its 95 % interval over the noises."""

    def ratio(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
        return np.sqrt(middle(one, axis=axis) / middle(other, axis=axis))

    return [float(ratio(best, tuned, -1)), *bootstrap_interval(ratio, best, tuned, draws=2000)]


def measured(subject: Subject) -> dict[str, object]:
    """Return the figures of one network."""
    began = time.perf_counter()
    found = fs.tune(subject.model, CALLS, folder=subject.cache / "search")
    print(subject.name, found, f"{time.perf_counter() - began:.0f} s", flush=True)
    tuned = subject.errors(found.recipe.plan)
    print(subject.name, "tuned", *summary(tuned), flush=True)
    table = {}
    for key, plan in cells(subject.model.process).items():
        table[key] = subject.errors(plan)
        print(subject.name, *key, *summary(table[key]), flush=True)
    by_error = sorted(table, key=lambda key: summary(table[key])[0])
    by_median = min(table, key=lambda key: summary(table[key])[1])
    verdict = found.verdict
    return {
        "recipe": found.winner.name if found.verdict.better else found.default.name,
        "noises": subject.count,
        "tuned": summary(tuned),
        "best": [[*key, *summary(table[key])] for key in by_error[:3]],
        "best median": [[*by_median, *summary(table[by_median])]],
        "gain": [gain(table[by_error[0]], tuned, np.mean), gain(table[by_median], tuned, np.median)],
        "cells": len(table),
        "table_calls": COMPARED * (EXACT + CALLS * len(table)),
        "calls": found.calls,
        "verdict": [verdict.noises, verdict.default, verdict.gain.value, verdict.gain.low, verdict.gain.high],
        "equal_calls": [verdict.equal_calls, verdict.equal_low, verdict.equal_high, verdict.most],
    }


def report() -> str:
    """Return the table of the figures."""
    rows = figures.read("tune")
    lines = ["| model | | error | median | network calls |", "|---|---|---:|---:|---:|"]
    for name, row in rows.items():
        for words, place in (("least error", "best"), ("least median", "best median")):
            solver, grid, error, median = row[place][0]
            calls = f"{row['table_calls']:,}".replace(",", " ")
            cell = f"{words} of {row['cells']} cells: `{solver}` on `{grid}`"
            lines.append(f"| {name} | {cell} | {error:.4f} | {median:.4f} | {calls} |")
        error, median = row["tuned"]
        lines.append(f"| | **tuned**: {row['recipe']} | **{error:.4f}** | **{median:.4f}** | **{row['calls']}** |")
    lines.append("")
    for name, row in rows.items():
        (mean, low, high), (median, median_low, median_high) = row["gain"]
        noises, default, better, better_low, better_high = row["verdict"]
        calls = row["equal_calls"][0]
        worth = f"more than {row['equal_calls'][3]}" if calls is None else f"{calls:.1f}"
        share = 100 * row["calls"] / row["table_calls"]
        lines.append(
            f"- {name}, {row['noises']} noises: {mean:.2f} times less error than the best cell (95 %: {low:.2f} to "
            f"{high:.2f}), {median:.2f} times less than the best median (95 %: {median_low:.2f} to "
            f"{median_high:.2f}), in "
            f"{share:.1f} % of the table's calls. The search's own verdict on {noises} further noises: {better:.2f} "
            f"times less error (95 %: {better_low:.2f} to {better_high:.2f}) than {default} in 6 calls; that needs "
            f"{worth} calls to be as good."
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and write the figures down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("build/tune"))
    parser.add_argument("--model", choices=list(time_steps.MODELS))
    parser.add_argument("--report", action="store_true")
    chosen = parser.parse_args()
    rows = figures.read("tune")
    for name in time_steps.available() if chosen.model is None else [chosen.model]:
        rows[name] = measured(Subject(name, chosen.cache))
        if chosen.report:
            figures.write("tune", {key: rows[key] for key in time_steps.MODELS if key in rows})
    if chosen.report:
        print(report())


if __name__ == "__main__":
    main()

"""Fréchet distances of stochastic plans, of constant τ and fitted, on the embedded model.

    python -W ignore benchmarks/calibration_stochastic.py [--calls N] [--images N] [--fit] [--plans NAME] [--report]

Plans are those of SA-Solver of orders 2 and 2, few-step form, on times even from 1 to 0 (diffusers' settings and
spacing). Beside constants stands τ = 1 where σ/α lies in [0.57, 5.1], diffusers' default window. --fit starts from that
window or a constant, and fits τ of each step and the rows (state and two predictions) to mean and covariance of the
embedded features of Fashion-MNIST's training images, with the noises of seeds from 10⁹ on, a quarter of them held out;
the round of the least distance on these is taken, whether it is better beyond doubt or not. Distances are of images of
the same test seeds for all plans, from 0 on, to the training images and to the solutions from these noises, those of
calibration_distance.py, whose cache is --solutions. What is measured is kept, plan by plan, in --cache.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import figures
import numpy as np
import torch
from calibration_distance import Distances
from calibration_report import table
from torch import Tensor

import fewstep as fs
from fewstep import metrics
from fewstep.calibration.network import CountedNetwork
from fewstep.calibration.noises import noises_for
from fewstep.calibration.reference import reference_grid
from fewstep.calibration.settings import Settings
from fewstep.calibration.stages import Calibration, Spent
from fewstep.fingerprint import described
from fewstep.metrics.bootstrap import bootstrap_interval

MODEL = "fashion-mnist"
CALLS = (8, 10, 15, 20)
CHUNK, NUM = 32, 256
WINDOW = fs.tau.window(1.0, 0.57, 5.1)
TAUS = {"0": 0.0, "0.4": 0.4, "0.7": 0.7, "1": 1.0, "window": WINDOW}
COLUMNS = {name: f"τ = {name}" for name in TAUS} | {"window": "τ = 1 in a window", "fitted": "fitted"}


class Stochastic:
    """The embedded model; figures are kept in a folder."""

    def __init__(self, cache: Path) -> None:
        self.folder = cache
        cache.mkdir(parents=True, exist_ok=True)
        self.model = fs.zoo.load(MODEL)
        self.model.network.to(memory_format=torch.channels_last)
        self.extractor, self.images = metrics.features(MODEL), metrics.reference(MODEL)

    def grid(self, calls: int) -> fs.TimeGrid:
        """Return the times, even in t."""
        return fs.grids.uniform_time(self.model.process, calls, end=0.0)

    def plan(self, name: str, calls: int) -> fs.Plan:
        """Return a plan; the fitted one is read."""
        if name == "fitted":
            return fs.load_recipe(self.folder / f"recipe-{calls}.json").plan
        return fs.SASolver(2, 2, tau=TAUS[name], few_step=True).plan(self.grid(calls))

    def fit(self, calls: int) -> None:
        """Fit a plan and keep it, whether it is better beyond doubt or not."""
        settings = Settings(
            num=NUM,
            seeds=None,
            history=2,
            analytic="auto",
            loss="auto",
            reference_steps=2 * calls,  # Only the noises of it are used.
            search=False,
            objective="distribution",
            features=self.compared,
            target=self.images,
            budget=None,
            batch_size=CHUNK,
            progress=lambda stage, spent, best: print(calls, stage, spent, best, flush=True),
            steps=(calls,),
            stochastic=True,
        )
        grid, classes = self.grid(calls), torch.arange(NUM) % 10
        network = CountedNetwork(self.model, classes, NUM, CHUNK)
        calibration = Calibration.begun(
            network,
            fs.SASolver(2, 2, tau=WINDOW, few_step=True),
            reference_grid(grid, 2 * calls),
            noises_for(self.model, grid, None, None, NUM, CHUNK),
            settings,
            described(self.model),
            classes=classes,
            drawn=True,
        )
        start, chosen = calibration.with_noise(grid)
        report = calibration.report(grid, start, chosen, Spent(0, 0.0)).report
        assert report is not None
        print(calls, chosen.told, report, chosen.plan.solver, report.tried, flush=True)
        fs.Recipe(chosen.plan, report).save(self.folder / f"recipe-{calls}.json")

    def compared(self, samples: Tensor) -> Tensor:
        """Return the features of samples."""
        return self.extractor(samples.clamp(-1.0, 1.0))

    def features(self, key: str, plan: fs.Plan, images: int) -> Tensor:
        """Return the features of the samples of a plan, float32 [images, 64]."""
        parts = []
        for first in range(0, images, CHUNK):
            path = self.folder / f"features-{key}-{first}.pt"
            if not path.exists():
                seeds = range(first, first + CHUNK)
                x_T = fs.initial_state(plan.grid, self.model.shape, seeds)
                made = fs.execute(plan, self.model, x_T, seeds=seeds, cond=torch.tensor(seeds) % 10)
                torch.save(self.compared(made), path)
            parts.append(torch.load(path))
        return torch.cat(parts)

    def gain(self, calls: int, name: str, images: int) -> tuple[float, float]:
        """Return the 95 % interval of how many times the distance to real images is lower with the fitted plan."""
        made = [self.kept(calls, plan, images) for plan in (name, "fitted")]

        def ratio(drawn: np.ndarray) -> float:
            some = torch.from_numpy(drawn.astype(np.int64))
            before, after = (metrics.frechet_distance(features[some], self.images) for features in made)
            return before / after

        return bootstrap_interval(ratio, np.arange(images), draws=300, vectorized=False)

    def kept(self, calls: int, name: str, images: int) -> Tensor | None:
        """Return the features of a plan's samples if all were measured."""
        paths = [self.folder / f"features-{calls}-{name}-{first}.pt" for first in range(0, images, CHUNK)]
        return torch.cat([torch.load(path) for path in paths]) if all(path.exists() for path in paths) else None

    def measured(self, calls: int, solved: Tensor) -> dict[str, list[float]]:
        """Return the distances to real images and to the solutions, of each plan that was measured."""
        found, images = {}, len(solved)
        for name in COLUMNS:
            made = self.kept(calls, name, images)
            if made is not None:
                found[name] = [metrics.frechet_distance(made, other) for other in (self.images, solved)]
        if "fitted" in found:
            found["gain"] = list(self.gain(calls, min(TAUS, key=lambda name: found[name][0]), images))
        return found


def report() -> str:
    """Return the table."""
    rows = [
        [calls, *(" / ".join(f"{value:.3f}" for value in cell.get(name, [])) for name in COLUMNS)]
        for calls, cell in figures.read("calibration_stochastic").get("cells", {}).items()
    ]
    return table(["calls", *COLUMNS.values()], rows)


def main() -> None:
    """Measure what is missing, or write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, choices=CALLS, action="append")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--plans", choices=COLUMNS, action="append")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path("build/calibration_stochastic"))
    parser.add_argument("--solutions", type=Path, default=Path("build/calibration_gain"))
    arguments = parser.parse_args()
    bench = Stochastic(arguments.cache)
    if arguments.report:
        solved = Distances(arguments.solutions).solution(arguments.images)
        cells = {calls: found for calls in CALLS if (found := bench.measured(calls, solved))}
        figures.write("calibration_stochastic", {"images": len(solved), "cells": cells})
        return
    for calls in arguments.calls or CALLS:
        if arguments.fit:
            bench.fit(calls)
            continue
        unfitted = not (bench.folder / f"recipe-{calls}.json").exists()
        for name in arguments.plans or [name for name in COLUMNS if not (unfitted and name == "fitted")]:
            bench.features(f"{calls}-{name}", bench.plan(name, calls), arguments.images)
            print(calls, name, flush=True)


if __name__ == "__main__":
    main()

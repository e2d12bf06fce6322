"""Fréchet distances of stochastic plans, of constant τ and fitted, on the embedded model.

    python -W ignore benchmarks/calibration_stochastic.py [--calls N] [--images N] [--fit] [--plans NAME] [--report]

Plans are those of SA-Solver of orders 2 and 2, few-step form, on times even from 1 to 0 (diffusers' settings and
spacing). Beside constants stands τ = 1 where σ/α lies in [0.57, 5.1], diffusers' default window. --fit starts from that
window or a constant, and fits τ of each step and the rows (state and two predictions) to mean and covariance of the
embedded features of Fashion-MNIST's training images, with the noises of seeds from 10⁹ on, a quarter of them held out;
the round of the least distance on these is taken, whether it is better beyond doubt or not. Distances are of images of
the same test seeds for all plans, from 0 on, to the training images and to the solutions from these noises. What is
measured is kept, plan by plan, in the cache of calibration_distance.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import figures
import numpy as np
import torch
from calibration_distance import Distances, shown
from calibration_gain import CHUNK, settings
from torch import Tensor

import fewstep as fs
from fewstep import metrics
from fewstep.calibration.network import CountedNetwork
from fewstep.calibration.noises import noises_for
from fewstep.calibration.reference import reference_grid
from fewstep.calibration.stages import Calibration, Spent
from fewstep.fingerprint import described
from fewstep.metrics.bootstrap import bootstrap_interval

CALLS = (8, 10, 15, 20)
NUM = 256
WINDOW = fs.tau.window(1.0, 0.57, 5.1)
TAUS = {"0": 0.0, "0.4": 0.4, "0.7": 0.7, "1": 1.0, "window": WINDOW}
COLUMNS = {name: f"τ = {name}" for name in TAUS} | {"window": "τ = 1 in a window", "fitted": "fitted"}


class Stochastic(Distances):
    """The embedded model; figures are kept in a folder."""

    columns = COLUMNS

    def grid(self, calls: int) -> fs.TimeGrid:
        """Return the times, even in t."""
        return fs.grids.uniform_time(self.bench.process, calls, end=0.0)

    def plan(self, name: str, calls: int) -> fs.Plan:
        """Return a plan; the fitted one is read."""
        if name == "fitted":
            return fs.load_recipe(self.recipe(calls)).plan
        return fs.SASolver(2, 2, tau=TAUS[name], few_step=True).plan(self.grid(calls))

    def recipe(self, calls: int) -> Path:
        """Return the file of the fitted plan."""
        return self.bench.folder / f"recipe-stochastic-{calls}.json"

    def fit(self, calls: int) -> None:
        """Fit a plan and keep it, whether it is better beyond doubt or not."""
        wanted = settings(
            num=NUM,
            history=2,
            reference_steps=2 * calls,  # Only the noises of it are used.
            search=False,
            objective="distribution",
            features=self.compared,
            target=self.images,
            budget=None,
            progress=lambda stage, spent, best: print(calls, stage, spent, best, flush=True),
            steps=(calls,),
            stochastic=True,
        )
        model, grid, classes = self.bench.model, self.grid(calls), torch.arange(NUM) % 10
        network = CountedNetwork(model, classes, NUM, CHUNK)
        calibration = Calibration.begun(
            network,
            fs.SASolver(2, 2, tau=WINDOW, few_step=True),
            reference_grid(grid, 2 * calls),
            noises_for(model, grid, None, None, NUM, CHUNK),
            wanted,
            described(model),
            classes=classes,
            drawn=True,
        )
        start, chosen = calibration.with_noise(grid)
        report = calibration.report(grid, start, chosen, Spent(0, 0.0)).report
        assert report is not None
        print(calls, chosen.told, report, chosen.plan.solver, report.tried, flush=True)
        fs.Recipe(chosen.plan, report).save(self.recipe(calls))

    def compared(self, samples: Tensor) -> Tensor:
        """Return the features of samples."""
        return self.extractor(samples.clamp(-1.0, 1.0))

    def gain(self, calls: int, name: str, images: int) -> tuple[float, float]:
        """Return the 95 % interval of how many times the distance to real images is lower with the fitted plan."""
        made = [self.kept(calls, plan, images) for plan in (name, "fitted")]

        def ratio(drawn: np.ndarray) -> float:
            some = torch.from_numpy(drawn.astype(np.int64))
            before, after = (metrics.frechet_distance(features[some], self.images) for features in made)
            return before / after

        return bootstrap_interval(ratio, np.arange(images), draws=300, vectorized=False)

    def measured(self, calls: int, images: int) -> dict[str, list[float]]:
        """Return the distances to real images and to the solutions, and the gain of the fitted plan."""
        found = super().measured(calls, images)
        if "fitted" in found:
            found["gain"] = list(self.gain(calls, min(TAUS, key=lambda name: found[name][0]), images))
        return found


def report() -> str:
    """Return the table."""
    return shown("calibration_stochastic", COLUMNS)


def main() -> None:
    """Measure what is missing, or write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, choices=CALLS, action="append")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--plans", choices=COLUMNS, action="append")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path("build/calibration_gain"))
    arguments = parser.parse_args()
    bench = Stochastic(arguments.cache)
    if arguments.report:
        cells = {calls: found for calls in CALLS if (found := bench.measured(calls, arguments.images))}
        figures.write("calibration_stochastic", {"images": arguments.images, "cells": cells})
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

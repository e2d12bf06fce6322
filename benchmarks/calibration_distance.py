"""Fréchet distances of plans fitted to samples, to features and to their distribution, on the embedded model.

    python -W ignore benchmarks/calibration_distance.py [--calls N] [--images N] [--report]

Plans start from those of calibration_gain.py, fitted to final samples, whose cache is shared: on their times the rows
are fitted to the embedded features of 192 noises' samples, then to the features' mean and covariance, those of the
solutions or of Fashion-MNIST's training images. A quarter of the noises is held out; the round of the least distance on
them is taken, whether it is better beyond doubt or not. Distances are of the same test noises for all plans, from 0 on,
and of their solutions (40 calls of UniPC-3 on the grid for the spectrum). What is measured is kept, plan by plan.
"""

from __future__ import annotations

import argparse
from functools import cached_property
from pathlib import Path

import figures
import torch
from calibration_gain import CHUNK, Bench
from calibration_report import table
from torch import Tensor

import fewstep as fs
from fewstep import metrics
from fewstep.calibration.final_problem import FinalProblem
from fewstep.calibration.fitting import Fitting
from fewstep.calibration.gauss_newton import Point
from fewstep.calibration.held_out_moments import HeldOutMoments
from fewstep.calibration.network import CountedNetwork
from fewstep.calibration.noises import HELD_OUT, noises_for
from fewstep.calibration.reference import Reference, reference_grid

MODEL = "fashion-mnist"
CALLS = (5, 8, 4, 6, 10)
NUM, FINE = 192, 40
COLUMNS = {
    "untuned": "iPNDM-3 on its grid for the spectrum",
    "final": "`final`",
    "features": "`features`",
    "solution": "`distribution`, of the solutions",
    "images": "`distribution`, of real images",
}


class Distances:
    """The embedded model; figures are kept in a folder."""

    columns = COLUMNS

    def __init__(self, cache: Path) -> None:
        self.bench = Bench(MODEL, cache)
        self._to_features: dict[int, tuple[FinalProblem, Point]] = {}
        self.extractor, self.images = metrics.features(MODEL), metrics.reference(MODEL)

    @cached_property
    def fitting(self) -> Fitting:
        """What makes fits to features, with the reference."""
        model = self.bench.model
        grid = fs.grids.quadratic_time(model.process, 20, end="zero")
        classes = torch.arange(NUM) % 10
        network = CountedNetwork(model, classes, NUM, CHUNK)
        noises = noises_for(model, grid, None, None, NUM, CHUNK)
        reference = Reference.solve(network, reference_grid(grid, 100), noises)
        which = torch.arange(NUM - NUM // HELD_OUT)
        return Fitting(network, reference, fs.UniPC(3), which, 4, classes, "root", _silent, self.extractor)

    def plan(self, name: str, calls: int) -> fs.Plan:
        """Return a plan, from the file of an earlier run if there is one."""
        if name == "untuned":
            return self.bench.untuned("iPNDM-3", calls)
        if name == "final":
            return self.bench.recipe(calls).plan
        path = self.bench.folder / f"distance-{calls}-{name}.json"
        if not path.exists():
            fs.Recipe(self.fitted(name, calls)).save(path)
        return fs.load_recipe(path).plan

    def fitted(self, name: str, calls: int) -> fs.Plan:
        """Return the plan fitted to features, or from there to their distribution."""
        fitting, (problem, point) = self.fitting, self.to_features(calls)
        first = point.detail.finished()
        if name == "features":
            return first
        target = self.images if name == "images" else None
        held = HeldOutMoments(fitting, torch.arange(len(fitting.which), NUM), None, target)
        best = min([first, *fitting.distribution(problem, point, target)], key=held.score)
        gain, _ = held.gain(first, best)
        print(f"{calls}, {name}: {gain.before:.3f} -> {gain.after:.3f} ({gain.low:.2f} … {gain.high:.2f})", flush=True)
        return best

    def to_features(self, calls: int) -> tuple[FinalProblem, Point]:
        """Return the fit to features, on the times of the fit to final samples."""
        if calls not in self._to_features:
            start, fitting = self.bench.recipe(calls).plan, self.fitting
            tables = fitting.candidates([start.steps - start.nfe])[0]
            rows = fitting.rows(tables, start.grid, "root")
            self._to_features[calls] = fitting.final(tables, rows, "root", times=False)
        return self._to_features[calls]

    def features(self, key: str, plan: fs.Plan, images: int) -> Tensor:
        """Return the features of the samples of a plan, float32 [images, 64]."""
        parts = []
        for first in range(0, images, CHUNK):
            path = self.bench.folder / f"features-{key}-{first}.pt"
            if not path.exists():
                torch.save(self.extractor(self.bench.samples(plan, first).clamp(-1.0, 1.0)), path)
            parts.append(torch.load(path))
        return torch.cat(parts)

    def solution(self, images: int) -> Tensor:
        """Return the features of the solutions."""
        process, solver = self.bench.process, fs.UniPC(3)
        path = self.bench.folder / "spectrum.pt"
        if not path.exists():
            torch.save(self.bench.calibration.fitting.spectrum(), path)
        spectrum = torch.load(path, weights_only=False)
        fine = fs.grids.optimized(process, solver, FINE, spectrum=spectrum, end="zero")
        return self.features("solution", solver.plan(fine), images)

    def measure(self, calls: int, images: int) -> None:
        """Take the samples' features of all plans."""
        for name in COLUMNS:
            self.features(f"{calls}-{name}", self.plan(name, calls), images)

    def measured(self, calls: int, images: int) -> dict[str, list[float]]:
        """Return the distances to real images and to the solutions, of each plan that was measured."""
        solved, found = self.solution(images), {}
        for name in self.columns:
            made = self.kept(calls, name, images)
            if made is not None:
                found[name] = [metrics.frechet_distance(made, other) for other in (self.images, solved)]
        return found

    def kept(self, calls: int, name: str, images: int) -> Tensor | None:
        """Return the features of a plan's samples if all were measured."""
        paths = [self.bench.folder / f"features-{calls}-{name}-{first}.pt" for first in range(0, images, CHUNK)]
        return torch.cat([torch.load(path) for path in paths]) if all(path.exists() for path in paths) else None


def _silent(stage: str, calls: int, best: float | None) -> None:
    """Say nothing of progress."""


def report() -> str:
    """Return the table."""
    return shown("calibration_distance", COLUMNS)


def shown(name: str, columns: dict[str, str]) -> str:
    """Return the table of distances to real images and to the solutions that a benchmark wrote."""
    rows = [
        [calls, *(" / ".join(f"{value:.3f}" for value in cell.get(column, [])) for column in columns)]
        for calls, cell in figures.read(name).get("cells", {}).items()
    ]
    return table(["calls", *columns.values()], rows)


def main() -> None:
    """Measure what is missing, or write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, choices=CALLS, action="append")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path("build/calibration_gain"))
    arguments = parser.parse_args()
    distances = Distances(arguments.cache)
    if arguments.report:
        cells = {calls: found for calls in sorted(CALLS) if (found := distances.measured(calls, arguments.images))}
        solved = metrics.frechet_distance(distances.solution(arguments.images), distances.images)
        figures.write("calibration_distance", {"images": arguments.images, "solution": solved, "cells": cells})
        return
    for calls in arguments.calls or CALLS:
        distances.measure(calls, arguments.images)


if __name__ == "__main__":
    main()

"""What calibration gains over the best untuned samplers, those on grids for the data's spectrum included.

    python -W ignore benchmarks/calibration_gain.py [--model NAME] [--calls N] [--noises N] [--fit NAME] [--report]

On the embedded model and, where the shared folder is present, lfw32-ddpm. The error of a noise is the root mean square
over its pixels of its sample less its solution (300 calls of a fourth-order method, to the noise-free end). Untuned are
``SOLVERS``, and versions of them whose first prediction is a formula, on the grid for the spectrum of the model's
samples, the best one there is (spectra.py). All are measured on 32 noises, the two best on as many as the fitted plan.
Plans are searched (rows and times, no new start after 3,000 network calls) from the quadratic grid, with 64 noises from
10⁹ on and a reference of 100 calls, or what --fit names: no test noise is among them. One reference serves all.

What is measured is kept, cell by cell, in --cache, and a run goes on where the last one stopped. --report writes the
figures of all that is there, of as many noises as the fitted plan was measured on.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import figures
import numpy as np
import torch
from calibration_report import table
from time_steps import MODELS, available
from torch import Tensor

import fewstep as fs
from fewstep.calibration.network import CountedNetwork
from fewstep.calibration.noises import noises_for
from fewstep.calibration.reference import reference_grid
from fewstep.calibration.settings import Settings
from fewstep.calibration.stages import Calibration
from fewstep.fingerprint import described
from fewstep.metrics.bootstrap import bootstrap_interval

CALLS = (5, 8, 10, 6, 4, 3, 15, 20)
SOLVERS = {"UniPC-3": fs.UniPC(3), "UniPC-2": fs.UniPC(2), "DPM++2": fs.DPMSolverPP(2), "iPNDM-3": fs.IPNDM(3)}
SOLVERS |= {f"{name}, analytic first": replace(solver, analytic_first=True) for name, solver in SOLVERS.items()}
"""Those that begin with a formula take one step more for the same calls."""
CHUNK, FIRST, FINE = 32, 32, 300
MOST = 10
"""The most calls at which rows and times are fitted to the final samples; above, rows one by one alone."""
NUM, BUDGET = 64, 3000
FITS = {"usual": (NUM, 100), "careful": (2 * NUM, 300)}
"""Noises of a calibration, and calls of its reference."""


def settings(**changed: Any) -> Settings:
    """Return the settings of these fits, some of them changed."""
    usual: dict[str, Any] = {
        "num": NUM,
        "seeds": None,
        "history": 4,
        "analytic": "auto",
        "loss": "auto",
        "reference_steps": FITS["usual"][1],
        "search": True,
        "objective": "final",
        "features": None,
        "target": None,
        "budget": BUDGET,
        "batch_size": CHUNK,
        "progress": None,
        "steps": CALLS,
    }
    return Settings(**{**usual, **changed})


class Bench:
    """One model; figures are kept in a folder."""

    def __init__(self, name: str, cache: Path, fit: str = "usual") -> None:
        self.name, self.folder, self.fit = name, cache / name, fit
        self.num, self.reference = FITS[fit]
        self.mark = self.mark_of(fit)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model = MODELS[name]()
        self.model.network.to(memory_format=torch.channels_last)
        self.process = self.model.process

    @staticmethod
    def mark_of(fit: str) -> str:
        """Return what marks the files of a fit."""
        return "" if fit == "usual" else f"-{fit}"

    def kept(self, key: str, make: Callable[[], Any]) -> Any:
        """Return what ``make`` makes, from the file of an earlier run if there is one."""
        path = self.folder / f"{key}.json"
        if not path.exists():
            path.write_text(json.dumps(make()) + "\n")
        return json.loads(path.read_text())

    def samples(self, plan: fs.Plan, first: int) -> Tensor:
        """Return the samples of a chunk, classes in turn."""
        seeds = range(first, first + CHUNK)
        cond = torch.tensor(seeds) % 10 if self.model.num_classes else None
        x_T = fs.initial_state(plan.grid, self.model.shape, seeds)
        return fs.execute(plan, self.model, x_T, seeds=seeds if plan.stochastic else None, cond=cond)

    def exact(self, first: int) -> Tensor:
        """Return the solutions of a chunk."""
        path = self.folder / f"exact-{first}.pt"
        if not path.exists():
            fine = fs.grids.uniform_logsnr(self.process, FINE, end="zero")
            torch.save(self.samples(fs.SASolver(4, 4, tau=0.0, few_step=True).plan(fine), first), path)
        return torch.load(path)

    def errors(self, key: str, plan: fs.Plan, noises: int) -> list[float]:
        """Return the error of each noise."""

        def made(first: int) -> list[float]:
            gap = self.samples(plan, first) - self.exact(first)
            return gap.double().square().flatten(1).mean(1).sqrt().tolist()

        parts = [self.kept(f"{key}-{first}", lambda first=first: made(first)) for first in range(0, noises, CHUNK)]
        return [error for part in parts for error in part]

    def measured(self, key: str) -> Tensor:
        """Return the errors of all noises in turn that were measured."""
        found: list[float] = []
        while (path := self.folder / f"{key}-{len(found)}.json").exists():
            found += json.loads(path.read_text())
        return torch.tensor(found, dtype=torch.float64)

    def untuned(self, name: str, calls: int) -> fs.Plan:
        """Return the plan of a solver on the grid for the spectrum."""
        solver, spectrum = SOLVERS[name], self.calibration.fitting.spectrum()
        steps = calls + int(solver.analytic_first)
        return solver.plan(fs.grids.optimized(self.process, solver, steps, spectrum=spectrum, end="zero"))

    def measure(self, calls: int, noises: int) -> None:
        """Measure the fitted plan and the best untuned ones."""
        recipe = self.recipe(calls)
        fitted = self.errors(f"errors-{calls}-calibrated{self.mark}", recipe.plan, noises)
        first = {}
        for name in SOLVERS:
            found = self.errors(f"errors-{calls}-{name}", self.untuned(name, calls), FIRST)
            first[name] = sum(found)
        for name in sorted(first, key=first.__getitem__)[:2]:
            found = self.errors(f"errors-{calls}-{name}", self.untuned(name, calls), noises)
            gain = sum(found) / sum(fitted)
            median = float(torch.tensor(found).median() / torch.tensor(fitted).median())
            print(f"{self.name} {calls}: {name} {sum(found) / noises:.4f}, {gain:.2f} / {median:.2f} times", flush=True)

    def recipe(self, calls: int) -> fs.Recipe:
        """Return the fitted plan, from the file of an earlier run if there is one."""
        path = self.folder / f"recipe-searched-{calls}{self.mark}.json"
        if not path.exists():
            calibration = self.calibration
            if calls > MOST:
                calibration = replace(calibration, settings=replace(calibration.settings, objective="local"))
            calibration.fitting.network.calls = 0
            recipe = calibration.recipe(fs.grids.quadratic_time(self.process, calls, end="zero"))
            recipe.save(path)
            assert recipe.report is not None
            print(self.name, calls, recipe.report.settings["chosen"], recipe.report, flush=True)
        return fs.load_recipe(path)

    @cached_property
    def calibration(self) -> Calibration:
        """The calibration with its reference."""
        grid = fs.grids.quadratic_time(self.process, 20, end="zero")
        classes = torch.arange(self.num) % 10 if self.model.num_classes else None
        network = CountedNetwork(self.model, classes, self.num, CHUNK)
        noises = noises_for(self.model, grid, None, None, self.num, CHUNK)
        fine, asked = reference_grid(grid, self.reference), settings(num=self.num, reference_steps=self.reference)
        return Calibration.begun(
            network, fs.UniPC(3), fine, noises, asked, described(self.model), classes=classes, drawn=True
        )


def write(benches: list[Bench]) -> None:
    """Write the figures of all that was measured."""
    found = {}
    for bench in benches:
        cells = {}
        for calls, fit in itertools.product(sorted(CALLS), FITS):
            mark = Bench.mark_of(fit)
            fitted = bench.measured(f"errors-{calls}-calibrated{mark}")
            if not len(fitted):
                continue
            recipe = fs.load_recipe(bench.folder / f"recipe-searched-{calls}{mark}.json").report
            assert recipe is not None
            untuned = {name: bench.measured(f"errors-{calls}-{name}") for name in SOLVERS}
            whole = {name: errors for name, errors in untuned.items() if len(errors) >= len(fitted)}
            cell = cells[f"{calls}{mark}"] = {
                "noises": len(fitted),
                "fit": FITS[fit],
                "network calls": recipe.calls,
                "chosen": recipe.settings["chosen"]
                if recipe.kept == "fitted"
                else {"analytic": "the base", "last": ""},
                "calibrated": summary(fitted),
                "untuned": {name: summary(errors) for name, errors in whole.items()},
            }
            if whole:
                best = whole[min(whole, key=lambda name: float(whole[name].mean()))][: len(fitted)]
                cell["bulk"] = bulk(best, fitted)
                cell["interval"] = bootstrap_interval(ratio, best.numpy(), fitted.numpy(), draws=2000)
        found[bench.name] = cells
    figures.write("calibration_gain", found)


def bulk(before: Tensor, after: Tensor) -> float:
    """Return how many times lower the mean is without the twentieth of the noises with the largest sum of both."""
    most = (before + after).argsort()[: len(after) - len(after) // 20]
    return float(before[most].mean() / after[most].mean())


def ratio(before: np.ndarray, after: np.ndarray, axis: int) -> np.ndarray:
    """Return how many times lower the mean error is."""
    return before.mean(axis) / after.mean(axis)


def summary(errors: Tensor) -> dict[str, float]:
    """Return mean, root mean square, median and 95th percentile of the noises' errors."""
    return {
        "mean": float(errors.mean()),
        "rms": float(errors.square().mean().sqrt()),
        "median": float(errors.median()),
        "p95": float(errors.quantile(0.95)),
    }


def report() -> str:
    """Return the tables."""
    parts = []
    for model, cells in figures.read("calibration_gain").items():
        rows = []
        for calls, cell in cells.items():
            if not cell["untuned"]:
                continue
            name = min(cell["untuned"], key=lambda name: cell["untuned"][name]["mean"])
            before, after = cell["untuned"][name], cell["calibrated"]
            gains = {key: before[key] / after[key] for key in ("mean", "median")}
            low, high = cell["interval"]
            rows.append(
                [
                    calls.partition("-")[0],
                    " / ".join(map(str, cell["fit"])),
                    str(cell["noises"]),
                    name,
                    *(" / ".join(f"{one[key]:.4f}" for key in ("mean", "rms", "median")) for one in (before, after)),
                    f"{gains['mean']:.2f} ({low:.2f} … {high:.2f})",
                    f"{cell['bulk']:.2f}",
                    f"{gains['median']:.2f}",
                    cell["chosen"]["analytic"],
                    cell["chosen"]["last"],
                    f"{cell['network calls'] / 1000:.0f}k",
                ]
            )
        if not rows:
            continue
        head = [
            "calls",
            "fit: noises / reference",
            "test noises",
            "best untuned",
            "its mean / RMS / median",
            "calibrated",
        ]
        head += [
            "gain of the mean (95 %)",
            "without 1 in 20",
            "of the median",
            "formulas first",
            "last",
            "network calls of the fit",
        ]
        parts += [f"### {model}", table(head, rows)]
    return "\n\n".join(parts)


def main() -> None:
    """Measure what is missing, then write tables and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(MODELS), action="append")
    parser.add_argument("--calls", type=int, choices=CALLS, action="append")
    parser.add_argument("--noises", type=int, default=320)
    parser.add_argument("--fit", choices=list(FITS), default="usual")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path("build/calibration_gain"))
    arguments = parser.parse_args()
    benches = [Bench(name, arguments.cache, arguments.fit) for name in arguments.model or available()]
    if arguments.report:
        return write(benches)
    for calls in arguments.calls or CALLS:
        for bench in benches:
            bench.measure(calls, arguments.noises)
    return None


if __name__ == "__main__":
    main()

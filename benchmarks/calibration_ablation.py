"""What each part of a calibration adds: parts put on one after the other, and taken out of the whole.

    python -W ignore benchmarks/calibration_ablation.py [--model NAME] [--calls N] [--noises N] [--report]

Noises, solutions and errors are those of calibration_gain.py, whose fitted plans are the whole; its cache is shared.
What is measured is kept, plan by plan, and a run goes on where the last one stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

import figures
from calibration_gain import Bench, summary
from calibration_report import table
from time_steps import MODELS, available

import fewstep as fs
from fewstep.calibration.final_problem import FinalProblem
from fewstep.calibration.fitting import Fitting
from fewstep.calibration.gauss_newton import Point
from fewstep.calibration.least_squares import total
from fewstep.calibration.search import SPECTRAL
from fewstep.calibration.stages import Start
from fewstep.spectra import Spectrum

CALLS = (5, 8)
LOSS = "root"
ADDED = {
    "untuned": "UniPC-3 on the quadratic grid",
    "rows": "+ rows fitted one by one",
    "formulas": "+ first predictions by formulas",
    "spectra": "+ grids for the spectrum",
    "times": "+ the search's other starts, 3,000 network calls",
    "final": "+ rows and times fitted to the final samples",
    "last": "+ a formula after the last row, where one helps, all fitted on",
    "calibrated": "+ both losses, the held-out noises choosing: the whole",
}
REMOVED = {
    "without formulas": "the line above the whole, without formulas before the first call",
    "without spectra": "… without starts at grids for the spectrum",
    "without times": "… without a search, on the best grid for the spectrum",
}


class WithoutSpectra(Fitting):
    """Fits whose searches start at no grid for a spectrum."""

    def spectrum(self) -> Spectrum | None:
        """Return none."""
        return None


class Parts:
    """The plans of one model and number of calls."""

    def __init__(self, bench: Bench, calls: int) -> None:
        self.calibration, self.fitting = bench.calibration, bench.calibration.fitting
        self.grid = fs.grids.quadratic_time(bench.process, calls, end="zero")
        self.makers: dict[str, Callable[[], fs.Plan]] = {
            "untuned": lambda: fs.UniPC(3).plan(self.grid),
            "rows": lambda: self.rows(Start(self.calibration.tables[0], self.grid, ())),
            "formulas": lambda: self.rows(
                Start(*self.fitting.started(self.grid, self.calibration.tables, None)[:2], ())
            ),
            "spectra": lambda: self.rows(self.spectral()),
            "times": lambda: self.rows(self.searched),
            "final": lambda: self.together(self.searched, times=True, last=False),
            "last": lambda: self.together(self.searched, times=True),
            "without formulas": lambda: self.whole(self.fitting, counts=1),
            "without spectra": lambda: self.whole(WithoutSpectra(**_attributes(self.fitting)), counts=4),
            "without times": lambda: self.together(self.spectral(), times=False),
        }
        self._searched: Start | None = None
        self._together: dict[tuple[Start, bool], tuple[FinalProblem, Point]] = {}

    @property
    def searched(self) -> Start:
        """The start and the grid that a search finds."""
        if self._searched is None:
            self.fitting.network.calls = 0
            self._searched = self.calibration.start(self.grid)
        return self._searched

    def rows(self, start: Start) -> fs.Plan:
        """Return the rows fitted one by one."""
        return self.fitting.rows(start.tables, start.grid, LOSS).table.finished()

    def together(self, start: Start, times: bool, last: bool = True) -> fs.Plan:
        """Return the rows, the times and a formula after the last row fitted to the final samples."""
        if (start, times) not in self._together:
            rows = self.fitting.rows(start.tables, start.grid, LOSS)
            self._together[start, times] = self.fitting.final(start.tables, rows, LOSS, times)
        problem, point = self._together[start, times]
        ended = self.fitting.with_last(problem, point) if last else None
        return (point if ended is None else ended).detail.finished()

    def spectral(self) -> Start:
        """Return the best grid for the spectrum with the best number of formulas, rows fitted."""
        found = []
        for tables in self.calibration.tables:
            for solver in SPECTRAL:
                steps = self.grid.steps + tables.count
                best = partial(fs.grids.optimized, spectrum=self.fitting.spectrum(), end="zero")
                grid = best(self.grid.process, solver, steps)
                ends = self.fitting.rows(tables, grid, LOSS).end
                errors = self.fitting.reference.errors(ends, self.fitting.which)
                found.append((total(errors, LOSS), Start(tables, grid, ())))
        return min(found, key=lambda entry: entry[0])[1]

    def whole(self, fitting: Fitting, counts: int) -> fs.Plan:
        """Return the plan of all parts but the second loss, with so many of the numbers of formulas."""
        fitting.network.calls = 0
        budget = self.calibration.settings.calls
        tables, grid, _ = fitting.started(self.grid, self.calibration.tables[:counts], budget)
        return self.together(Start(tables, grid, ()), times=True)


def _attributes(fitting: Fitting) -> dict[str, object]:
    return {one.name: getattr(fitting, one.name) for one in fields(fitting)}


def measure(bench: Bench, calls: int, noises: int) -> None:
    """Measure what is missing of one number of calls."""
    parts = Parts(bench, calls)
    for name, make in parts.makers.items():
        key = f"ablation-{calls}-{name}"
        if len(bench.measured(key)) < noises:
            found = bench.errors(key, make(), noises)
            print(f"{bench.name} {calls}, {name}: {sum(found) / noises:.4f}", flush=True)


def write(benches: list[Bench], noises: int) -> None:
    """Write the figures of all that was measured, on the same noises."""
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for bench in benches:
        for calls in CALLS:
            measured = {name: bench.measured(f"ablation-{calls}-{name}") for name in (*ADDED, *REMOVED)}
            measured["calibrated"] = bench.measured(f"errors-{calls}-calibrated")
            cells = {name: summary(errors[:noises]) for name, errors in measured.items() if len(errors) >= noises}
            if set(ADDED) - {"final"} <= set(cells):
                found.setdefault(bench.name, {})[str(calls)] = cells
    figures.write("calibration_ablation", {"noises": noises, "models": found})


def report() -> str:
    """Return the table."""
    found = figures.read("calibration_ablation").get("models", {})
    cells = {(model, calls): cell for model, some in found.items() for calls, cell in some.items()}
    rows = [
        [
            words,
            *(
                f"{cell[name]['mean']:.4f} / {cell[name]['median']:.4f}" if name in cell else ""
                for cell in cells.values()
            ),
        ]
        for name, words in (*ADDED.items(), *REMOVED.items())
        if any(name in cell for cell in cells.values())
    ]
    return table(["", *(f"{model}, {calls} calls" for model, calls in cells)], rows)


def main() -> None:
    """Measure what is missing, or write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(MODELS), action="append")
    parser.add_argument("--calls", type=int, choices=CALLS, action="append")
    parser.add_argument("--noises", type=int, default=128)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path("build/calibration_gain"))
    arguments = parser.parse_args()
    benches = [Bench(name, arguments.cache) for name in arguments.model or available()]
    if arguments.report:
        return write(benches, arguments.noises)
    for calls in arguments.calls or CALLS:
        for bench in benches:
            measure(bench, calls, arguments.noises)
    return None


if __name__ == "__main__":
    main()

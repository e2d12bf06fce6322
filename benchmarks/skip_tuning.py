"""What Skip-Tuning does to the Fréchet distance, over ρ of the deepest skip, calls and solvers.

    python -W ignore benchmarks/skip_tuning.py [--num 5000] [--threads 1] [--model NAME] [--calls 8 20]

The embedded model, with classes in turn, and where the shared folder is present lfw32-ddpm (both in bfloat16; the state
is float32) are sampled from the seeds 0, 1, … on the uniform λ grid to the noise-free end with ρ linear from ρ_bottom
(deepest skip) to 1 (outermost). SA-Solver adds noise, τ = 0.4, where σ/α is in [0.05, 1].

The distance is that of the embedded features: the embedded model's to Fashion-MNIST's training images, lfw32-ddpm's,
whose training images are not there, to as many samples of the model itself, in 50 calls from other seeds, of the grey
images. ± is twice the bootstrap's standard deviation: of the distance itself, and of its difference from ρ = 1 with the
same seeds drawn on both sides.

The features of each cell are kept under build/ and not computed again; two runs at once share the cells. The table is
made of the cells that are there; where a cell's features are not, its figures are kept from the last run.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import figures
import numpy as np
import torch
from matplotlib.axes import Axes
from time_steps import MODELS, available

import fewstep as fs
from fewstep.report.style import drawing

CALLS = (5, 8, 10, 20, 40)
RHO = (1.0, 0.8, 0.5, 1.1, 0.65, 0.9)
COARSE = RHO[:4]
SOLVERS = {
    "UniPC-3": fs.UniPC(3),
    "SA(3,3), τ=0.4": fs.SASolver(3, 3, tau=fs.tau.window(0.4, 0.05, 1.0), few_step=True),
    "UniPC-2": fs.UniPC(2),
}
BATCH = 100
RESAMPLES = 100
OWN_CALLS, OWN_SEED = 50, 1_000_000
CACHE = Path(__file__).resolve().parents[1] / "build" / "skip_tuning"


@dataclass(frozen=True)
class Cell:
    """What is sampled: a solver, the calls and ρ of the deepest skip."""

    solver: str
    calls: int
    rho: float
    first_seed: int = 0

    @property
    def name(self) -> str:
        """The name of its file."""
        seed = f"-{self.first_seed}" if self.first_seed else ""
        return f"{list(SOLVERS).index(self.solver)}-{self.calls}-{self.rho}{seed}.npy"


OWN = Cell("UniPC-3", OWN_CALLS, 1.0, OWN_SEED)
CELLS = [
    Cell(solver, calls, rho)
    for some in (COARSE, RHO[len(COARSE) :])
    for calls in CALLS
    for rho in some
    for solver in SOLVERS
]


class Bench:
    """One model; the features of its cells are kept in a folder."""

    def __init__(self, name: str) -> None:
        self.name, self.folder = name, CACHE / name
        self.embedded = name == "fashion-mnist"
        self.cells = CELLS if self.embedded else [OWN, *CELLS]
        self.folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def model(self) -> fs.DataPredictor:
        """The model in bfloat16."""
        return MODELS[self.name](torch.bfloat16)

    @cached_property
    def extractor(self) -> fs.metrics.Extractor:
        """The embedded features."""
        return fs.metrics.features("fashion-mnist")

    @cached_property
    def reference(self) -> fs.metrics.Moments:
        """What the distances are to."""
        return fs.metrics.reference() if self.embedded else moments(np.load(self.folder / OWN.name))

    def features(self, cell: Cell, num: int) -> np.ndarray:
        """Return the features of ``num`` images, rounded to 256 levels as images are, [num, d]."""
        solver = SOLVERS[cell.solver]
        grid = fs.grids.uniform_logsnr(self.model.process, cell.calls, end="zero")
        assert solver.plan(grid).nfe == cell.calls
        found = []
        for start in range(0, num, BATCH):
            seeds = [cell.first_seed + i for i in range(start, min(start + BATCH, num))]
            cond = torch.tensor(seeds) % 10 if self.model.num_classes else None
            x_0 = fs.sample(self.model, solver, grid, seeds=seeds, cond=cond)
            images = fs.metrics.from_uint8(fs.metrics.to_uint8(x_0)).mean(dim=1, keepdim=True)
            found.append(self.extractor(images))
        return torch.cat(found).numpy()

    def compute(self, num: int, solvers: list[str], calls: list[int]) -> None:
        """Compute the features of every cell of these solvers and calls that no other run has begun."""
        for cell in self.cells:
            if cell != OWN and not (cell.solver in solvers and cell.calls in calls):
                continue
            path = self.folder / cell.name
            claim = path.with_suffix(".claim")
            if path.exists() or claim.exists():
                continue
            claim.touch()
            try:
                with fs.skip.tuned(self.model, bottom=cell.rho):
                    np.save(path, self.features(cell, num))
            finally:
                claim.unlink()
            print(self.name, cell.solver, cell.calls, cell.rho, flush=True)

    def measure(self) -> dict[str, list[dict[str, float]]]:
        """Return, for each solver, a row for each cell whose features are there."""
        rows: dict[str, list[dict[str, float]]] = {solver: [] for solver in SOLVERS}
        plain: dict[tuple[str, int], tuple[float, np.ndarray]] = {}
        for cell in CELLS:
            needed = [cell, replace(cell, rho=1.0), *([] if self.embedded else [OWN])]
            if not all((self.folder / one.name).exists() for one in needed):
                continue
            found = np.load(self.folder / cell.name)
            drawn = np.random.default_rng(0).integers(0, len(found), (RESAMPLES, len(found)))
            value = self.distance(found)
            resampled = np.array([self.distance(found[i]) for i in drawn])
            if cell.rho == 1.0:
                plain[cell.solver, cell.calls] = value, resampled
            base, base_resampled = plain[cell.solver, cell.calls]
            rows[cell.solver].append(
                {
                    "calls": cell.calls,
                    "rho": cell.rho,
                    "num": len(found),
                    "fd": value,
                    "fd_pm": 2.0 * float(resampled.std()),
                    "change": value - base,
                    "change_pm": 2.0 * float((resampled - base_resampled).std()),
                }
            )
        return rows

    def distance(self, found: np.ndarray) -> float:
        """Return the Fréchet distance of features to the reference."""
        return fs.metrics.frechet_distance(moments(found), self.reference)


def merged(old: dict[str, list[dict[str, float]]], new: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return the rows of ``new``, and those of ``old`` that ``new`` does not have."""
    cells = {
        solver: {(row["calls"], row["rho"]): row for row in [*old.get(solver, []), *new[solver]]} for solver in SOLVERS
    }
    return {solver: list(rows.values()) for solver, rows in cells.items()}


def moments(found: np.ndarray) -> fs.metrics.Moments:
    """Return mean and covariance of features."""
    return fs.metrics.moments_of(torch.from_numpy(found))


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    """Return the markdown table, the lowest of each row in bold, * where the change from ρ = 1 exceeds its ±."""
    order = sorted(RHO)
    lines = [
        "| solver | calls | " + " | ".join(f"ρ = {rho}" for rho in order) + " |",
        "|---|---:|" + "---:|" * len(RHO),
    ]
    for solver, found in rows.items():
        for calls in CALLS:
            here = {row["rho"]: row for row in found if row["calls"] == calls}
            best = min((row["fd"] for row in here.values()), default=None)
            texts = [text(here.get(rho), best) for rho in order]
            if here:
                lines.append(f"| {solver} | {calls} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def text(row: dict[str, float] | None, best: float | None) -> str:
    """Return a cell of the table."""
    if row is None:
        return ""
    value = f"{row['fd']:.4f}"
    clear = "*" if abs(row["change"]) > row["change_pm"] else ""
    return f"{f'**{value}**' if row['fd'] == best else value} ± {row['fd_pm']:.4f}{clear}"


def plot(found: dict[str, dict[str, list[dict[str, float]]]]) -> None:
    """Draw the change from ρ = 1 over ρ, a row of panels for each model."""
    file, rows, columns = figures.RESULTS / "skip_tuning.png", len(found), len(SOLVERS)
    with drawing(file, 13, 3.6 * rows, rows, columns, dpi=120, sharey="row") as (_, panels):
        for line, (model, cells_of) in zip(panels, found.items(), strict=True):
            for panel, solver in zip(line, SOLVERS, strict=True):
                cells = cells_of.get(solver, [])
                for calls in CALLS:
                    curve(panel, [row for row in cells if row["calls"] == calls])
                panel.set_visible(bool(cells))
                panel.axhline(0.0, color="0.6", lw=0.8)
                panel.set(title=f"{model}: {solver}", xlabel="ρ of the deepest skip")
            line[0].set_ylabel("Fréchet distance, change from ρ = 1")
            line[0].legend()


def curve(panel: Axes, rows: list[dict[str, float]]) -> None:
    """Draw the rows of one number of calls."""
    if len(rows) < 2:
        return
    rows, calls = sorted(rows, key=lambda row: row["rho"]), int(rows[0]["calls"])
    panel.errorbar(
        [row["rho"] for row in rows],
        [row["change"] for row in rows],
        [row["change_pm"] for row in rows],
        marker="o",
        ms=3,
        lw=1.2,
        capsize=2,
        label=f"{calls} calls",
        color=f"C{CALLS.index(calls)}",
    )


def report() -> str:
    """Return the tables of the models that were measured."""
    found = figures.read("skip_tuning")
    return "\n\n".join(f"### {name}\n\n{table(rows)}" for name, rows in found.items())


def main() -> None:
    """Compute what is missing, then write the tables, their figures and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", choices=available(), help="one model alone")
    parser.add_argument("--solver", choices=SOLVERS, help="one solver alone")
    parser.add_argument("--calls", type=int, nargs="*", default=list(CALLS), help="the numbers of calls to compute")
    parser.add_argument(
        "--report", action="store_true", help="measure nothing; only draw and print the cells that are there"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = figures.read("skip_tuning")
    benches = [Bench(name) for name in ([arguments.model] if arguments.model else available())]
    for bench in benches:
        if not arguments.report:
            bench.compute(arguments.num, [arguments.solver] if arguments.solver else list(SOLVERS), arguments.calls)
        found[bench.name] = merged(found.get(bench.name, {}), bench.measure())
    shown = {name: found[name] for name in MODELS if any(found.get(name, {}).values())}
    figures.write("skip_tuning", shown)
    plot(shown)
    print(report())


if __name__ == "__main__":
    main()

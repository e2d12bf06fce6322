"""Error of solvers on heuristic and optimised grids, on real networks.

    python -W ignore benchmarks/time_steps.py [--noises 64] [--model NAME] [--grid NAME]

RMSE between a sample and the reference solution from the same noise (500 calls of a fourth-order method, to the
noise-free end), for the embedded model and, where the shared folder is present, lfw32-ddpm. All grids end with an
interval to the noise-free end, so that N steps are N calls. The published optimiser takes seconds a grid: it is run
for UniPC only. With --model and --grid the figures of other models and grids are kept from the last run, which must
have used as many noises.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import figures
import torch

import fewstep as fs
from fewstep.report.style import drawing

CALLS = (5, 6, 8, 10, 15, 20)
BATCH = 32
SHARED = Path(os.environ.get("FEWSTEP_SHARED", Path(__file__).resolve().parents[2] / "shared"))
SOLVERS = {"UniPC-3": fs.UniPC(3), "DPM++3": fs.DPMSolverPP(3), "DDIM": fs.DDIM()}


def ends_early(process: fs.processes.Process, solver: fs.Solver, steps: int) -> fs.TimeGrid:
    """Return uniform λ with the last interval from λ = 2.5 to the noise-free end."""
    inner = fs.grids.uniform_logsnr(process, max(steps - 1, 1), end=float(process.time(2.5)))
    return fs.TimeGrid(process, torch.cat([inner.times, torch.zeros(1, dtype=torch.float64)]))


def linspace(process: fs.processes.Process, solver: fs.Solver, steps: int) -> fs.TimeGrid:
    """Return what diffusers' schedulers take by default: whole timesteps, even from 999 to 999/N, then zero."""
    timesteps = torch.linspace(0, 999, steps + 1, dtype=torch.float64).round().flip(0)[:-1]
    return fs.TimeGrid(process, torch.cat([(timesteps + 1) / 1000, torch.zeros(1, dtype=torch.float64)]))


def fixed_end(process: fs.processes.Process, solver: fs.Solver, steps: int) -> fs.TimeGrid:
    """Return the published optimised grid, p = 1, which ends at t_min, and then the noise-free end."""
    inner = fs.grids.optimized(process, solver, steps - 1, end=process.t_min, method="trust-constr")
    return fs.TimeGrid(process, torch.cat([inner.times, torch.zeros(1, dtype=torch.float64)]))


GRIDS: dict[str, Callable[[fs.processes.Process, fs.Solver, int], fs.TimeGrid]] = {
    "uniform λ": lambda p, s, n: fs.grids.uniform_logsnr(p, n, end="zero"),
    "uniform λ to 2.5": ends_early,
    "uniform t": lambda p, s, n: fs.grids.uniform_time(p, n, end="zero"),
    "linspace": linspace,
    "quadratic": lambda p, s, n: fs.grids.quadratic_time(p, n, end="zero"),
    "karras": lambda p, s, n: fs.grids.karras(p, n, end="zero"),
    "optimised p=1": lambda p, s, n: fs.grids.optimized(p, s, n, end="zero", error_power=1),
    "optimised p=2": lambda p, s, n: fs.grids.optimized(p, s, n, end="zero", error_power=2),
    "published p=1": fixed_end,
}


def fashion_mnist(dtype: torch.dtype = torch.float32) -> fs.DataPredictor:
    """Return the embedded model."""
    return fs.zoo.load("fashion-mnist", dtype=dtype)


def lfw32(dtype: torch.dtype = torch.float32) -> fs.DataPredictor:
    """Return the pretrained face model of the shared folder."""
    from diffusers import UNet2DModel

    folder = SHARED / "models" / "lfw32-ddpm" / "unet"
    network = UNet2DModel.from_pretrained(folder, torch_dtype=dtype).eval().requires_grad_(False)
    return fs.Denoiser(network, fs.processes.VPDiscrete.from_betas(), "v", shape=(3, 32, 32))


MODELS = {"fashion-mnist": fashion_mnist, "lfw32-ddpm": lfw32}


def available() -> list[str]:
    """Return the names of the models that are there."""
    return [name for name in MODELS if name == "fashion-mnist" or (SHARED / "models" / name).is_dir()]


def samples(model: fs.DataPredictor, solver: fs.Solver, grid: fs.TimeGrid, x_T: torch.Tensor, conditional: bool):  # noqa: ANN201
    """Return the samples from ``x_T``, in batches, with classes in turn for a conditional model."""
    parts = []
    for start in range(0, len(x_T), BATCH):
        some = x_T[start : start + BATCH]
        cond = torch.arange(start, start + len(some)) % 10 if conditional else None
        parts.append(fs.sample(model, solver, grid, some, cond=cond))
    return torch.cat(parts)


Errors = dict[str, dict[str, list[float]]]


def measure(model: fs.DataPredictor, conditional: bool, noises: int, chosen: list[str], kept: Errors) -> Errors:
    """Return RMSE[solver][grid] over ``CALLS``: the chosen grids are measured, the others kept."""
    process = model.process
    x_T = fs.initial_state(fs.grids.uniform_logsnr(process, 2), model.shape, range(noises))
    fine = fs.grids.uniform_logsnr(process, 500, end="zero")
    reference = samples(model, fs.SASolver(4, 4, tau=0.0, few_step=True), fine, x_T, conditional)
    results: Errors = {}
    for name, solver in SOLVERS.items():
        grids = {grid: make for grid, make in GRIDS.items() if make is not fixed_end or name == "UniPC-3"}
        results[name] = {grid: [] if grid in chosen else kept[name][grid] for grid in grids}
        for grid, make in grids.items():
            if grid not in chosen:
                continue
            for calls in CALLS:
                made = make(process, solver, calls)
                assert solver.plan(made).nfe == calls
                got = samples(model, solver, made, x_T, conditional)
                results[name][grid].append(float((got - reference).square().mean().sqrt()))
            print(name, grid, [round(x, 4) for x in results[name][grid]], flush=True)
    return results


def table(results: dict[str, dict[str, list[float]]]) -> str:
    """Return the markdown table, the best of each solver and number of calls in bold."""
    lines = ["| solver | grid | " + " | ".join(map(str, CALLS)) + " |", "|---|---|" + "---:|" * len(CALLS)]
    for solver, grids in results.items():
        best = [min(column) for column in zip(*grids.values(), strict=True)]
        for grid, row in grids.items():
            cells = [f"**{x:.4f}**" if x == low else f"{x:.4f}" for x, low in zip(row, best, strict=True)]
            lines.append(f"| {solver} | {grid} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(results: dict[str, dict[str, dict[str, list[float]]]]) -> None:
    """Draw RMSE over calls, a panel for each model and solver."""
    rows, columns = len(results), len(SOLVERS)
    with drawing(figures.RESULTS / "time_steps.png", 12, 3.6 * rows, rows, columns, sharex=True) as (figure, panels):
        for row, (model, by_solver) in zip(panels, results.items(), strict=True):
            for axes, (solver, grids) in zip(row, by_solver.items(), strict=True):
                for grid, values in grids.items():
                    strong = grid.startswith(("optimised", "published"))
                    axes.plot(CALLS, values, "o-", label=grid, linewidth=2 if strong else 1, markersize=4)
                axes.set(
                    yscale="log", title=f"{model}, {solver}", xlabel="network calls", ylabel="RMSE to the reference"
                )
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)


def kept() -> dict[str, Errors]:
    """Return the errors that were measured, by model."""
    results = figures.read("time_steps")
    return {name: results[name]["rmse"] for name in MODELS if name in results}


def report() -> str:
    """Return the tables of the models that were measured."""
    return "\n\n".join(f"### {name}\n\n{table(found)}" for name, found in kept().items())


def main() -> None:
    """Measure every model that is here; keep the figures and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--noises", type=int, default=64)
    parser.add_argument("--model", choices=list(MODELS), action="append")
    parser.add_argument("--grid", choices=list(GRIDS), action="append")
    args = parser.parse_args()
    chosen = args.model or available()
    for name in chosen:
        last = figures.read("time_steps").get(name, {})
        if args.grid and last.get("noises") != args.noises:
            parser.error(f"the last run of {name} had {last.get('noises')} noises: leave out --grid to measure all.")
        found = measure(
            MODELS[name](), name == "fashion-mnist", args.noises, args.grid or list(GRIDS), last.get("rmse", {})
        )
        results = figures.read("time_steps")
        results[name] = {"calls": CALLS, "noises": args.noises, "rmse": found}
        figures.write("time_steps", results)
    plot(kept())
    print(report())


if __name__ == "__main__":
    main()

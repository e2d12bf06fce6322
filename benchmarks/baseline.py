"""FD and error of every solver on every grid, and of diffusers' own schedulers, by ``fewstep compare``.

    python -W ignore benchmarks/baseline.py [--steps 5 6 8 10 15 20] [--num 5000] [--processes 2 | --device cuda]

Runs ``fewstep compare`` on the embedded model for each number of calls that has no figures of these commands yet, and
makes the tables and the picture of all that have. All cells have the same seeds and, seed by seed, the same classes;
the network runs in bfloat16, the states in float32. Heun's method calls the network 2n − 1 times in n steps: it stands
in the columns of 2n − 1 and of 2n calls. Euler's method is DDIM (η = 0), and is left out. uniform_time:end=0 has the
timesteps that diffusers' schedulers take by default. ``fewstep compare`` keeps its cells, and the report of the last
comparison, under build. UniPC is measured on the grid optimised for latents (error_power=2) too, and SA-Solver
with the settings that diffusers' scheduler has on Stable Diffusion's process. On a GPU the noise of a seed is another
one than on a CPU: where both were measured, the report says by how much the distances differ.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import figures
import numpy as np
import torch

from fewstep.report.style import drawing

CALLS = (5, 6, 8, 10, 15, 20)
SA = "sa:few_step=True,tau=0.4@0.05:1"
SOLVERS = ("ddim", "deis", "dpmpp:order=2", "dpmpp:order=3", "unipc:order=2", "unipc:order=3", SA)
GRIDS = ("karras", "optimized", "quadratic_time", "uniform_logsnr", "uniform_time", "uniform_time:end=0")
P2 = "optimized:error_power=2"
SA_2 = "sa:predictor_order=2,corrector_order=2,few_step=True,tau=1@0.57:5.1"
AS_DIFFUSERS = "sa, settings and spacing of diffusers'"
SAME = {"deis": "deis", "dpmpp:order=2": "dpmpp2", "dpmpp:order=3": "dpmpp3", "unipc:order=2": "unipc", SA: "sa"}
"""Which of diffusers' schedulers is each solver's counterpart."""
PEERS = tuple(sorted(SAME.values()))
ON_A_GPU = ["--batch-size", "1000", "--device", "cuda"]
METRICS = {"fd": "Fréchet distance", "error": "error (RMSE)"}
ROOT = Path(__file__).resolve().parents[1]
KEPT = ("solver", "grid", "error", "fd")
"""What is kept of each cell."""


def commands(calls: int, num: int, device: str) -> list[list[str]]:
    """Return the comparisons of one number of calls: all on all grids, Heun's in half the steps, and two others."""
    all_grids = ",".join(GRIDS)
    asked = [
        ["--grids", all_grids, "--solvers", ",".join(SOLVERS), "--steps", str(calls), "--peers", ",".join(PEERS)],
        ["--grids", all_grids, "--solvers", "heun", "--steps", str((calls + 1) // 2)],
        ["--grids", P2, "--solvers", "unipc:order=2,unipc:order=3", "--steps", str(calls)],
        ["--grids", GRIDS[-1], "--solvers", SA_2, "--steps", str(calls)],
    ]
    words = ["fewstep", "compare", "--model", "fashion-mnist", "--dtype", "bfloat16", "--num", str(num)]
    words += ["--exact-steps", "60", *(["--batch-size", "100"] if device == "cpu" else ON_A_GPU)]
    return [[*words, *some, "--out", str(Path("build", stem(device)))] for some in asked]


def stem(device: str) -> str:
    """Return how the files of a device's figures are called."""
    return "baseline" if device == "cpu" else f"baseline-{device}"


def run(words: list[str], processes: int) -> None:
    """Run a command of fewstep, by accelerate in several processes of one thread."""
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes), "--num_machines", "1"]
        start += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m"]
    threads = {"OMP_NUM_THREADS": "1"} if processes > 1 else {}
    (ROOT / "build").mkdir(exist_ok=True)
    subprocess.run([*start, "fewstep.cli", *words[1:]], check=True, cwd=ROOT, env={**os.environ, **threads})


def typed(calls: int, num: int, device: str) -> list[str]:
    """Return the command lines of one number of calls."""
    return [shlex.join(words) for words in commands(calls, num, device)]


def measure(calls: int, num: int, processes: int, device: str) -> dict[str, Any]:
    """Return the figures of one number of calls, with the commands and versions that made them."""
    where = platform.processor() or platform.machine() if device == "cpu" else torch.cuda.get_device_name()
    found: dict[str, Any] = {"commands": typed(calls, num, device), "on": where, "rows": []}
    for words in commands(calls, num, device):
        run(words, processes)
        table = json.loads((ROOT / "build" / stem(device) / "table.json").read_text())
        found["versions"] = table["versions"]
        found["rows"] += [{key: row[key] for key in KEPT if key in row} for row in table["rows"]]
    return found


def cells(results: dict[str, Any], metric: str) -> dict[tuple[str, str], dict[str, float]]:
    """Return what was measured on each (solver, grid), by the number of calls."""
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for calls, measured in results.items():
        for row in measured["rows"]:
            if metric in row:
                found[row["solver"], row["grid"]][calls] = row[metric]
    return found


def table(results: dict[str, Any], metric: str) -> str:
    """Return the markdown table of a metric, the best of each number of calls in bold."""
    found = cells(results, metric)
    best = {calls: min(values[calls] for values in found.values() if calls in values) for calls in results}
    lines = ["| solver | grid | " + " | ".join(results) + " |", "|---|---|" + "---:|" * len(results)]
    for (solver, grid), values in found.items():
        lines.append(f"| {solver} | {grid} | " + " | ".join(text(values, calls, best) for calls in results) + " |")
    return "\n".join(lines)


def text(values: dict[str, float], calls: str, best: dict[str, float]) -> str:
    """Return a cell of the table."""
    if calls not in values:
        return ""
    return f"**{values[calls]:.4f}**" if values[calls] == best[calls] else f"{values[calls]:.4f}"


def chance(results: dict[str, Any], others: dict[str, Any]) -> str:
    """Return by how much the distances of two tables differ, whose noise differs: a CPU's and a GPU's."""
    apart: dict[str, list[float]] = {"without noise": [], "SA-Solver": []}
    for calls in results.keys() & others.keys():
        again = {(row["solver"], row["grid"]): row["fd"] for row in others[calls]["rows"]}
        for row in results[calls]["rows"]:
            kind, cell = "without noise" if "error" in row else "SA-Solver", (row["solver"], row["grid"])
            if cell in again:
                apart[kind].append(abs(row["fd"] / again[cell] - 1.0))
    lines = []
    for kind, values in apart.items():
        low, high, worst = (100 * float(np.quantile(values, part)) for part in (0.5, 0.95, 1.0))
        lines.append(
            f"- {kind}, {len(values)} cells: median {low:.1f} %, 95 % of cells {high:.1f} %, worst {worst:.1f} %"
        )
    return "\n".join(lines)


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw the Fréchet distance over calls: a panel for each solver, a line for each grid, dashed for diffusers'."""
    found = cells(results, "fd")
    drawn = (*GRIDS[:2], P2, *GRIDS[2:])
    with drawing(path, 13, 7, 2, 4, sharex=True) as (figure, panels):
        for axes, solver in zip(panels.flat, (*SOLVERS, "heun"), strict=True):
            for grid in drawn:
                values = found[solver, grid]
                axes.plot([int(calls) for calls in values], list(values.values()), "o-", label=grid, markersize=4)
            if solver == SA:
                values = found[SA_2, GRIDS[-1]]
                axes.plot(
                    [int(calls) for calls in values], list(values.values()), "ks-", label=AS_DIFFUSERS, markersize=4
                )
            peer = found.get((f"diffusers:{SAME.get(solver)}", "its own"), {})
            axes.plot([int(calls) for calls in peer], list(peer.values()), "k--", label="diffusers' own", linewidth=1)
            axes.set(xscale="log", yscale="log", title="sa" if solver == SA else solver)
            axes.set_xticks(list(map(int, results)), list(results))
            ticks = (0.5, 1, 2, 5, 10, 20) if solver == "heun" else (0.3, 0.5, 1, 2, 4)
            axes.set_yticks(ticks, list(map(str, ticks)))
            axes.set_ylim(*((0.4, 40) if solver == "heun" else (0.23, 6.4)))
            axes.minorticks_off()
        for axes in panels[1]:
            axes.set_xlabel("network calls")
        for axes in panels[:, 0]:
            axes.set_ylabel("Fréchet distance")
        lines = {line.get_label(): line for axes in panels.flat for line in axes.get_lines()}
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=5)


def report(device: str = "cuda") -> str:
    """Return the tables of a device's figures, and how far those of another device are from them."""
    results = figures.read(stem(device))
    parts = [f"### {title}\n\n{table(results, metric)}" for metric, title in METRICS.items()]
    for path in sorted(figures.RESULTS.glob("baseline*.json")):
        if path.stem != stem(device):
            parts.append(f"### By chance\n\n{chance(results, figures.read(path.stem))}")
    return "\n\n".join(parts)


def main() -> None:
    """Measure what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="*", default=list(CALLS), help="the numbers of calls to measure")
    parser.add_argument("--num", type=int, default=5000)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="on the CPU")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    name = stem(arguments.device)
    results = figures.read(name)
    for calls in arguments.steps:
        if results.get(str(calls), {}).get("commands") != typed(calls, arguments.num, arguments.device):
            processes = arguments.processes if arguments.device == "cpu" else 1
            results[str(calls)] = measure(calls, arguments.num, processes, arguments.device)
            results = {key: results[key] for key in sorted(results, key=int)}
            figures.write(name, results)
    plot(results, figures.RESULTS / f"{name}.png")
    print(report(arguments.device))


if __name__ == "__main__":
    main()

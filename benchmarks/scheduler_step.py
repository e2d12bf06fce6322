"""Time of one `FewStepScheduler.step` beside the schedulers of the installed diffusers, in one run.

    python benchmarks/scheduler_step.py [--device cuda]

Every scheduler runs the same number of steps on latents of the same shape with a ready network output. Step n of all
of them is timed before step n + 1 of any, so that what else the machine does falls on all alike; the first step,
which allocates, is left out. Figures are medians over steps and repeats. Noise is drawn by torch on both sides, and
no arithmetic can save that: its time stands beside, and diffusers' SASolver draws it in every step. On a GPU a step
ends when the device has done it.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import diffusers
import figures
import torch

from fewstep.integrations.diffusers import FewStepScheduler

SHAPES = {(1, 4, 64, 64): 60, (16, 4, 128, 128): 12}
"""Latents, and how often 20 steps on them are repeated."""
STEPS = 20

Make = Callable[[], Any]


def sasolver(tau: float, order: int = 2) -> Any:
    """Return diffusers' SASolver with a constant τ."""
    return diffusers.SASolverScheduler(predictor_order=order, corrector_order=order, tau_func=lambda t: tau)


PAIRS: dict[str, tuple[Make, Make]] = {
    "UniPC, order 2": (diffusers.UniPCMultistepScheduler, FewStepScheduler),
    "UniPC, order 3": (
        lambda: diffusers.UniPCMultistepScheduler(solver_order=3),
        lambda: FewStepScheduler(solver_order=3),
    ),
    "DPM++ 2M": (diffusers.DPMSolverMultistepScheduler, lambda: FewStepScheduler(solver="dpmpp")),
    "SA-Solver (2, 2), τ = 0": (lambda: sasolver(0.0), lambda: FewStepScheduler(solver="sa", tau=0.0)),
    "SA-Solver (3, 3), τ = 0": (
        lambda: sasolver(0.0, 3),
        lambda: FewStepScheduler(solver="sa", solver_order=3, tau=0.0),
    ),
    "SA-Solver (2, 2), τ = 1": (lambda: sasolver(1.0), lambda: FewStepScheduler(solver="sa", tau=1.0)),
}
NOISE = "the noise of a step (torch.randn)"


def measured(shape: tuple[int, ...], repeats: int, device: str) -> dict[str, float]:
    """Return the median time of a step in microseconds, by scheduler, over interleaved runs."""
    sample, output = torch.randn(shape, device=device), torch.randn(shape, device=device)
    wait: Callable[[], None] = (lambda: None) if device == "cpu" else torch.cuda.synchronize
    makes = {f"{side}: {name}": pair[i] for name, pair in PAIRS.items() for i, side in enumerate(("peer", "ours"))}
    times: dict[str, list[float]] = {name: [] for name in [*makes, NOISE]}
    for _ in range(repeats):
        schedulers = {name: make() for name, make in makes.items()}
        for scheduler in schedulers.values():
            scheduler.set_timesteps(STEPS, device=device)
        for n in range(STEPS):
            for name, scheduler in schedulers.items():
                t = scheduler.timesteps[n]
                begin = time.perf_counter()
                scheduler.step(output, t, sample, return_dict=False)
                wait()
                if n:
                    times[name].append(time.perf_counter() - begin)
            begin = time.perf_counter()
            torch.randn(shape, device=device)
            wait()
            times[NOISE].append(time.perf_counter() - begin)
    return {name: 1e6 * statistics.median(values) for name, values in times.items()}


def table(results: dict[str, dict[str, float]]) -> str:
    """Return the results as a table in Markdown."""
    lines = ["| latents | scheduler | diffusers, µs | fewstep, µs | ratio |", "|---|---|---:|---:|---:|"]
    for shape, times in results.items():
        for name in PAIRS:
            peer, ours = times[f"peer: {name}"], times[f"ours: {name}"]
            lines.append(f"| {shape} | {name} | {peer:.0f} | {ours:.0f} | {peer / ours:.1f} |")
        lines.append(f"| {shape} | {NOISE} | {times[NOISE]:.0f} | {times[NOISE]:.0f} | |")
    return "\n".join(lines)


def stem(device: str) -> str:
    """Return the name of a device's figures."""
    return "scheduler_step" if device == "cpu" else f"scheduler_step-{device}"


def report(device: str = "cpu") -> str:
    """Return the table of a device, and what it was measured on."""
    found = figures.read(stem(device))
    shown = ", ".join(f"{name} {value}" for name, value in found["about"].items())
    return f"{table(found['microseconds'])}\n\nMedians, float32; {shown}."


def main() -> None:
    """Measure, print the table, and write it and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    device = parser.parse_args().device
    results = {"×".join(map(str, shape)): measured(shape, repeats, device) for shape, repeats in SHAPES.items()}
    about = {
        "on": "the CPU" if device == "cpu" else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "python": platform.python_version(),
    }
    figures.write(stem(device), {"about": about, "microseconds": results})
    print(report(device))


if __name__ == "__main__":
    main()

"""Time of one sampling step without the network, beside diffusers' schedulers, in one run.

    python benchmarks/step_overhead.py

Each sampler runs a whole trajectory with a network that returns a ready tensor, so that what is measured is
the sampler alone. Runs of all samplers are interleaved; figures are medians. The yardstick is one matrix-vector
product over the tensors that a step of ours reads: the state, the history and the noise.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import diffusers
import torch

import fewstep as fs

SHAPES = [(1, 4, 64, 64), (16, 4, 128, 128)]
STEPS = 20
REPEATS = {SHAPES[0]: 60, SHAPES[1]: 12}


def ours(solver: fs.Solver, shape: tuple[int, ...]) -> Callable[[], object]:
    """Return a run of ``fs.execute`` whose denoiser costs nothing."""
    process = fs.processes.VPDiscrete.from_betas()
    plan = solver.plan(fs.grids.uniform_logsnr(process, STEPS))
    x_T, ready = torch.randn(shape), torch.randn(shape)
    return lambda: fs.execute(plan, lambda x, t: ready, x_T, generator=torch.Generator().manual_seed(0))


def peer(name: str, shape: tuple[int, ...], **settings: object) -> Callable[[], object]:
    """Return a run over a diffusers scheduler's steps."""
    scheduler = getattr(diffusers, name)(beta_schedule="linear", prediction_type="sample", **settings)
    x_T, ready = torch.randn(shape), torch.randn(shape)
    generator = torch.Generator().manual_seed(0)
    extra = {"generator": generator} if name == "SASolverScheduler" else {}

    def run() -> torch.Tensor:
        scheduler.set_timesteps(STEPS)
        x = x_T
        for t in scheduler.timesteps:
            x = scheduler.step(ready, t, x, return_dict=False, **extra)[0]
        return x

    return run


def products(tensors: int, shape: tuple[int, ...]) -> Callable[[], object]:
    """Return ``STEPS`` matrix-vector products over ``tensors`` tensors of ``shape``."""
    rows = torch.randn(tensors, torch.Size(shape).numel())
    out, weights = torch.empty(rows.shape[1]), torch.randn(tensors)

    def run() -> None:
        for _ in range(STEPS):
            torch.mv(rows.t(), weights, out=out)

    return run


def measure(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median microseconds a step of each run, all runs in turn."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 2):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if repeat >= 2:
                times[name].append((time.perf_counter() - began) / STEPS * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure, print the table, and write it down."""
    results = {}
    for shape in SHAPES:
        runs = {
            "fewstep UniPC-3": ours(fs.UniPC(3), shape),
            "fewstep UniPC-2": ours(fs.UniPC(2), shape),
            "fewstep SA(3,3) τ=1": ours(fs.SASolver(3, 3, tau=1.0, few_step=True), shape),
            "fewstep SA(3,3) τ=0": ours(fs.SASolver(3, 3, tau=0.0, few_step=True), shape),
            "diffusers UniPC-3": peer("UniPCMultistepScheduler", shape, solver_order=3),
            "diffusers UniPC-2": peer("UniPCMultistepScheduler", shape, solver_order=2),
            "diffusers DPM++2M": peer("DPMSolverMultistepScheduler", shape, solver_order=2),
            "diffusers SASolver": peer("SASolverScheduler", shape, predictor_order=3, corrector_order=3),
            "product over 5 tensors": products(5, shape),
            "product over 6 tensors": products(6, shape),
        }
        results["×".join(map(str, shape))] = measure(runs, REPEATS[shape])
    print(f"torch {torch.__version__}, diffusers {diffusers.__version__}, {torch.get_num_threads()} threads, "
          f"{platform.processor() or platform.machine()}; microseconds a step, medians")
    print("| sampler | " + " | ".join(results) + " |\n|---|" + "---:|" * len(results))
    for name in next(iter(results.values())):
        print(f"| {name} | " + " | ".join(f"{figures[name]:.0f}" for figures in results.values()) + " |")
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "step_overhead.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

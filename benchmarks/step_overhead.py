"""Time of one sampling step without the network, beside diffusers' schedulers, in one run.

    python benchmarks/step_overhead.py [--device cuda]

Each sampler runs whole trajectories with a network that returns a ready tensor, so that what is measured is
the sampler alone: a step is the slope between 20 and 60 steps, setting up is what remains. Runs of all samplers
are interleaved; figures are medians of the slopes. Two yardsticks: one matrix-vector product over as many
tensors as a step of ours reads (the state and the history, and the noise of a stochastic solver), and drawing the
noise itself, which no arithmetic can save. On a GPU the clock is read once the device has done all of a run.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import diffusers
import figures
import torch

import fewstep as fs

SHAPES = [(1, 4, 64, 64), (16, 4, 128, 128)]
SHORT, LONG = 20, 60
REPEATS = {SHAPES[0]: 40, SHAPES[1]: 7}
METHODS = ("UniPC-3", "UniPC-2", "SA(3,3), τ=0", "SA(3,3), τ=1")
Run = Callable[[int], object]


def generator_on(device: str) -> torch.Generator:
    """Return a generator of that device."""
    return torch.Generator(device).manual_seed(0)


def ours(solver: fs.Solver, shape: tuple[int, ...], device: str) -> Run:
    """Return a run of ``fs.execute`` whose denoiser costs nothing."""
    process = fs.processes.VPDiscrete.from_betas()
    plans = {steps: solver.plan(fs.grids.uniform_logsnr(process, steps)) for steps in (SHORT, LONG)}
    x_T, ready = torch.randn(shape, device=device), torch.randn(shape, device=device)
    generator = generator_on(device)
    return lambda steps: fs.execute(plans[steps], lambda x, t: ready, x_T, generator=generator)


def peer(name: str, shape: tuple[int, ...], device: str, **settings: object) -> Run:
    """Return a run over a diffusers scheduler's steps."""
    scheduler = getattr(diffusers, name)(beta_schedule="linear", prediction_type="sample", **settings)
    x_T, ready = torch.randn(shape, device=device), torch.randn(shape, device=device)
    extra = {"generator": generator_on(device)} if name == "SASolverScheduler" else {}

    def run(steps: int) -> torch.Tensor:
        scheduler.set_timesteps(steps, device=device)
        x = x_T
        for t in scheduler.timesteps:
            x = scheduler.step(ready, t, x, return_dict=False, **extra)[0]
        return x

    return run


def sa_peer(tau: float, shape: tuple[int, ...], device: str) -> Run:
    """Return a run over diffusers' SASolver with a constant τ."""
    return peer("SASolverScheduler", shape, device, predictor_order=3, corrector_order=3, tau_func=lambda t: tau)


def products(tensors: int, shape: tuple[int, ...], device: str) -> Run:
    """Return matrix-vector products over ``tensors`` tensors of ``shape``."""
    rows = torch.randn(tensors, torch.Size(shape).numel(), device=device)
    out, weights = torch.empty(rows.shape[1], device=device), torch.randn(tensors, device=device)

    def run(steps: int) -> None:
        for _ in range(steps):
            torch.mv(rows.t(), weights, out=out)

    return run


def noise(shape: tuple[int, ...], device: str) -> Run:
    """Return drawing as much normal noise as a stochastic step needs."""
    out, generator = torch.empty(shape, device=device), generator_on(device)

    def run(steps: int) -> None:
        for _ in range(steps):
            out.normal_(generator=generator)

    return run


def measure(runs: dict[str, Run], repeats: int, wait: Callable[[], None]) -> dict[str, dict[str, float]]:
    """Return the median microseconds of a step, and of setting up, of each run; all runs in turn."""
    slopes: dict[str, list[float]] = {name: [] for name in runs}
    setups: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 2):
        for name, run in runs.items():
            run(SHORT)  # into the caches
            wait()
            marks = [time.perf_counter()]
            for steps in (SHORT, LONG):
                run(steps)
                wait()
                marks.append(time.perf_counter())
            short, long = marks[1] - marks[0], marks[2] - marks[1]
            if repeat >= 2:
                slopes[name].append((long - short) / (LONG - SHORT) * 1e6)
                setups[name].append((short - SHORT * (long - short) / (LONG - SHORT)) * 1e6)
    return {
        name: {"step": statistics.median(slopes[name]), "setting_up": statistics.median(setups[name])} for name in runs
    }


def report(device: str = "cpu") -> str:
    """Return the table, and how many times less a step of ours takes than the same method's of diffusers."""
    results = figures.read(stem(device))
    lines = ["| sampler | " + " | ".join(results) + " |", "|---|" + "---:|" * len(results)]
    for name in next(iter(results.values())):
        cells = [f"{measured[name]['step']:.0f}" for measured in results.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("")
    for shape, measured in results.items():
        step = {name: values["step"] for name, values in measured.items()}
        drawn, noisy = step["drawing the noise"], METHODS[-1]
        times = [f"{name} {step[f'diffusers {name}'] / step[f'fewstep {name}']:.1f}" for name in METHODS]
        bare = (step[f"diffusers {noisy}"] - drawn) / (step[f"fewstep {noisy}"] - drawn)
        lines.append(f"- {shape}: times less than diffusers: {'; '.join(times)};")
        lines.append(f"  {noisy} without drawing the noise {bare:.1f}. A UniPC-3 step is as long as")
        lines.append(f"  {step['fewstep UniPC-3'] / step['product over 5 tensors']:.1f} products over 5 tensors.")
    return "\n".join(lines)


def stem(device: str) -> str:
    """Return the name of a device's figures."""
    return "step_overhead" if device == "cpu" else f"step_overhead-{device}"


def main() -> None:
    """Measure, print the table, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    device = parser.parse_args().device
    wait, where = (lambda: None), platform.processor() or platform.machine()
    if device != "cpu":
        wait, where = torch.cuda.synchronize, torch.cuda.get_device_name()
    results = {}
    for shape in SHAPES:
        runs = {
            "fewstep UniPC-3": ours(fs.UniPC(3), shape, device),
            "fewstep UniPC-2": ours(fs.UniPC(2), shape, device),
            "fewstep DPM++2": ours(fs.DPMSolverPP(2), shape, device),
            "fewstep SA(3,3), τ=0": ours(fs.SASolver(3, 3, tau=0.0, few_step=True), shape, device),
            "fewstep SA(3,3), τ=1": ours(fs.SASolver(3, 3, tau=1.0, few_step=True), shape, device),
            "diffusers UniPC-3": peer("UniPCMultistepScheduler", shape, device, solver_order=3),
            "diffusers UniPC-2": peer("UniPCMultistepScheduler", shape, device, solver_order=2),
            "diffusers DPM++2M": peer("DPMSolverMultistepScheduler", shape, device, solver_order=2),
            "diffusers SA(3,3), τ=0": sa_peer(0.0, shape, device),
            "diffusers SA(3,3), τ=1": sa_peer(1.0, shape, device),
            "drawing the noise": noise(shape, device),
            "product over 5 tensors": products(5, shape, device),
        }
        results["×".join(map(str, shape))] = measure(runs, REPEATS[shape], wait)
    print(
        f"torch {torch.__version__}, diffusers {diffusers.__version__}, {torch.get_num_threads()} threads, "
        f"{where}; microseconds a step (slope), medians"
    )
    figures.write(stem(device), results)
    print(report(device))


if __name__ == "__main__":
    main()

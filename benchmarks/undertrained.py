"""Spectral grids for a network that was hardly trained: its samples drift in colour, and their spectrum with them.

    python -W ignore benchmarks/undertrained.py [--seconds 400]

A small UNet learns to predict epsilon on CIFAR-10 (of the shared folder) for some minutes of processor time. Samples of
such a network have many times the variance of the data at frequency 0. The grid of UniPC-2 in 8 calls is made for the
spectrum of 64 samples as they are, for the same with the lowest frequencies held to a power law (what
``Spectrum.of`` does by default), for that of the data, and for the law of images; errors are to the network's own
solution from 32 other noises.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import figures
import numpy as np
import time_steps
import torch
from diffusers import UNet2DModel
from torch import Tensor

import fewstep as fs
from fewstep.spectra import Spectrum

CALLS, NOISES, SAMPLES, SOLUTION = 8, 32, 64, 150


def images() -> Tensor:
    """Return CIFAR-10's images in [−1, 1], uint8 as they are kept, [n, 3, 32, 32]."""
    folder = time_steps.SHARED / "data"
    sys.path.insert(0, str(folder))
    import load

    pixels = load.load(str(folder / "cifar10_jpegscans.npz"))[0]
    return torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, 1)


def scaled(pixels: Tensor) -> Tensor:
    """Return uint8 pixels as float32 in [−1, 1]."""
    return pixels.to(torch.float32) / 127.5 - 1.0


def train(data: Tensor, process: fs.processes.VPDiscrete, seconds: float, keep: Path) -> None:
    """Train a network for so long, and keep it and the number of its steps, every hundred steps."""
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(24, 48, 48),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    began, steps = time.process_time(), 0
    while time.process_time() - began < seconds:
        x_0 = scaled(data[torch.randint(len(data), (64,))])
        count = torch.randint(1, 1001, (64,))
        alpha, sigma = (f(count / 1000).to(torch.float32).view(-1, 1, 1, 1) for f in (process.alpha, process.sigma))
        noise = torch.randn_like(x_0)
        loss = (network(alpha * x_0 + sigma * noise, count - 1).sample - noise).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
        if steps % 100 == 0:
            torch.save((network, steps), keep)
            print(steps, f"{float(loss.detach()):.4f}", flush=True)


def main() -> None:
    """Train, measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=400.0)
    parser.add_argument("--keep", type=Path, default=Path("build/undertrained.pt"))
    args = parser.parse_args()
    process, data = fs.processes.VPDiscrete.from_betas(), images()
    if not args.keep.exists():
        args.keep.parent.mkdir(parents=True, exist_ok=True)
        train(data, process, args.seconds, args.keep)
    network, steps = torch.load(args.keep, weights_only=False)
    network.eval().requires_grad_(False)
    model = fs.Denoiser(network, process, "epsilon", shape=(3, 32, 32))
    solver = fs.UniPC(2)
    samples = fs.sample(model, solver, fs.grids.early_end(process, 10), seeds=range(1000, 1000 + SAMPLES))
    spectra = {
        "samples as they are": Spectrum.of(samples, robust=False),
        "samples": Spectrum.of(samples),
        "data": Spectrum.of(scaled(data[:: len(data) // 4000])),
    }
    grids = {
        f"spectrum of {name}": fs.grids.optimized(process, solver, CALLS, spectrum=found)
        for name, found in spectra.items()
    }
    grids |= {
        "spectrum of images": fs.grids.optimized(process, solver, CALLS),
        "even λ": fs.grids.uniform_logsnr(process, CALLS, end="zero"),
        "early end": fs.grids.early_end(process, CALLS),
        "bound, p = 2": fs.grids.optimized(process, solver, CALLS, error_power=2),
    }
    fine = fs.grids.uniform_logsnr(process, SOLUTION, end="zero")
    solution = fs.sample(model, fs.SASolver(4, 4, tau=0.0, few_step=True), fine, seeds=range(NOISES))
    rows = {}
    for name, grid in grids.items():
        off = fs.sample(model, solver, grid, seeds=range(NOISES)) - solution
        colour = off.mean((2, 3), keepdim=True)
        error, rest = (x.square().flatten(1).mean(1).sqrt() for x in (off, off - colour))
        rows[name] = {
            "mean": float(error.mean()),
            "median": float(error.median()),
            "but for colour": float(rest.mean()),
        }
        print(name, rows[name], [round(float(x), 2) for x in grid.half_logsnr[:-1]], flush=True)
    zero = {name: float(found.variances[found.frequencies == 0].mean()) for name, found in spectra.items()}
    zero["solutions"] = float(solution.mean((2, 3)).var(0).mean()) * solution[0, 0].numel()
    found = {"steps": steps, "calls": CALLS, "noises": NOISES, "variance at frequency 0": zero, "errors": rows}
    figures.write("undertrained", found)


def report() -> str:
    """Return the table."""
    found = figures.read("undertrained")
    if not found:
        return "Not measured yet."
    columns = ("mean", "median", "but for colour")
    lines = ["| grid of UniPC-2 in 8 calls | mean | median | mean, but for channels' means |", "|---|---:|---:|---:|"]
    for name, row in found["errors"].items():
        lines.append(f"| {name} | " + " | ".join(f"{row[column]:.3f}" for column in columns) + " |")
    zero = ", ".join(f"{name} {value:.3g}" for name, value in found["variance at frequency 0"].items())
    return "\n".join([*lines, "", f"Variance at frequency 0: {zero}."])


if __name__ == "__main__":
    main()

"""Error of solvers on grids made for a spectrum, beside every other grid, on two real networks.

    python -W ignore benchmarks/spectra.py [--noises 256] [--calls N] [--solver NAME] [--grid NAME] [--report]

The distance of a sample from the solution from the same noise, root mean square over pixels: its mean and its median
over noises, and for the embedded model the Fréchet distance of the same samples. The solution is the ODE's, by 300
calls of a fourth-order method; for SA-Solver it is the SDE's along the same Brownian path, by 200, with times moved
to the path's. All grids end at the noise-free end and N steps are N calls. Beside each error stands the likely one by
the spectrum of 64 other samples of the model, without a network call.

What was computed is kept, cell by cell, in --cache, and a run goes on where the last one stopped; --noises, --calls,
--solver and --grid say what to do first. --report writes the figures of all that is there.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import figures
import numpy as np
import time_steps
import torch
from spectra_report import shown_noises
from torch import Tensor

import fewstep as fs
from fewstep.grids.spectral import SpectralError
from fewstep.metrics.extractor import features, reference
from fewstep.metrics.frechet import frechet_distance
from fewstep.metrics.pixels import to_uint8
from fewstep.spectra import Spectrum

CALLS = (5, 6, 8, 10, 15, 20)
CHUNK, MOST = 32, 256
ODE_CALLS, PATH_CALLS = 300, 200
SAMPLES, OTHER_SEEDS = 64, 100_000
PATH_SEEDS = 1_000_000
SOLVERS: dict[str, fs.Solver] = {
    "UniPC-2": fs.UniPC(2),
    "DDIM": fs.DDIM(),
    "DPM++2": fs.DPMSolverPP(2),
    "SA-2, τ = 0.4": fs.SASolver(2, 2, tau=0.4, few_step=True),
    "SA-2, τ = 1": fs.SASolver(2, 2, tau=1.0, few_step=True),
    "UniPC-3": fs.UniPC(3),
}
Make = Callable[[fs.processes.Process, fs.Solver, int, Spectrum], fs.TimeGrid]
GRIDS: dict[str, Make] = {
    "even λ": lambda p, s, n, _: fs.grids.uniform_logsnr(p, n, end="zero"),
    "early end": lambda p, s, n, _: fs.grids.early_end(p, n),
    "even t": lambda p, s, n, _: fs.grids.uniform_time(p, n, end="zero"),
    "even t, end=0": lambda p, s, n, _: fs.grids.uniform_time(p, n, end=0.0),
    "quadratic": lambda p, s, n, _: fs.grids.quadratic_time(p, n, end="zero"),
    "karras": lambda p, s, n, _: fs.grids.karras(p, n, end="zero"),
    "bound, p = 1": lambda p, s, n, _: fs.grids.optimized(p, s, n, end="zero", error_power=1),
    "bound, p = 2": lambda p, s, n, _: fs.grids.optimized(p, s, n, end="zero", error_power=2),
    "spectrum": lambda p, s, n, spectrum: fs.grids.optimized(p, s, n, end="zero", spectrum=spectrum),
    "spectrum of images": lambda p, s, n, _: fs.grids.optimized(p, s, n, end="zero", spectrum="pixels"),
}


def tau_of(solver: fs.Solver) -> float:
    """Return τ of a solver, 0 for those without noise."""
    return float(solver.tau) if isinstance(solver, fs.SASolver) else 0.0  # type: ignore[arg-type]


class BrownianPath:
    """A Brownian path for each noise: normal numbers for short intervals, even in λ, and what they add up to."""

    def __init__(self, process: fs.processes.Process, tau: float, shape: tuple[int, ...], first: int) -> None:
        self.process, self.tau = process, tau
        self.fine = fs.grids.uniform_logsnr(process, PATH_CALLS, end="zero")
        self.level = self.fine.half_logsnr[:-1]
        self.step = float(self.level[1] - self.level[0])
        drawn = []
        for seed in range(first, first + CHUNK):
            generator = torch.Generator().manual_seed(PATH_SEEDS + seed)
            drawn.append(torch.randn(PATH_CALLS - 1, *shape, generator=generator))
        self.noise = torch.stack(drawn, dim=1)

    def moved(self, grid: fs.TimeGrid) -> fs.TimeGrid:
        """Return the grid with its times moved to those of the path, by at most half of a short interval in λ."""
        places = ((grid.half_logsnr[:-1] - self.level[0]) / self.step).round().long()
        for n in range(1, len(places)):
            places[n] = torch.maximum(places[n], places[n - 1] + 1)
        for n in reversed(range(len(places))):
            places[n] = min(int(places[n]), len(self.level) - len(places) + n)
        return fs.TimeGrid(self.process, torch.cat([self.fine.times[places], torch.zeros(1, dtype=torch.float64)]))

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        """Return the noise of an interval: ∫ e^{−τ²(λ_end − λ)} dW over it, of unit variance."""
        start, end = (int((self.fine.sigma - s).abs().argmin()) for s in (sigma, sigma_next))
        if end >= len(self.level):
            return self.noise[-1]
        squared = self.tau**2
        weights = torch.exp(-squared * (self.level[end] - self.level[start + 1 : end + 1]))
        weights = (weights / weights.square().sum().sqrt()).to(torch.float32)
        return torch.einsum("m,m...->...", weights, self.noise[start:end])


@dataclass
class Subject:
    """A network, and what is measured of it."""

    name: str
    cache: Path

    def __post_init__(self) -> None:
        self.model = time_steps.MODELS[self.name]()
        self.model.network.to(memory_format=torch.channels_last)
        self.process = self.model.process
        self.conditional = self.model.num_classes is not None
        self.first_call: dict[int, Tensor] = {}
        self.paths: dict[tuple[float, int], BrownianPath] = {}
        self.cache.mkdir(parents=True, exist_ok=True)
        self.spectrum = self._spectrum()

    def noise(self, first: int) -> tuple[Tensor, Tensor | None]:
        """Return x_T and classes of a chunk."""
        x_T = fs.initial_state(fs.grids.uniform_logsnr(self.process, 2), self.model.shape, range(first, first + CHUNK))
        return x_T, torch.arange(first, first + CHUNK) % 10 if self.conditional else None

    def sample(self, solver: fs.Solver, grid: fs.TimeGrid, first: int, path: BrownianPath | None = None) -> Tensor:
        """Return the samples of a chunk; the call on x_T, which all grids share, is made once."""
        x_T, cond = self.noise(first)

        def denoiser(x: Tensor, t: Tensor, *rest: Tensor) -> Tensor:
            if float(t) == self.process.t_max and torch.equal(x, x_T):
                if first not in self.first_call:
                    self.first_call = {first: self.model(x, t, *rest)}
                return self.first_call[first]
            return self.model(x, t, *rest)

        return fs.sample(denoiser, solver, grid, x_T, cond=cond, noise_sampler=path)

    def path(self, tau: float, first: int) -> BrownianPath | None:
        """Return the Brownian path of a chunk, None without noise."""
        if tau and (tau, first) not in self.paths:
            self.paths = {(tau, first): BrownianPath(self.process, tau, self.model.shape, first)}
        return self.paths.get((tau, first))

    def solution(self, tau: float, first: int) -> Tensor:
        """Return the solutions of a chunk."""
        file = self.cache / f"{self.name}-solution-{tau:g}-{first}.pt"
        if not file.exists():
            if tau == 0.0:
                fine = fs.grids.uniform_logsnr(self.process, ODE_CALLS, end="zero")
                made = self.sample(fs.SASolver(4, 4, tau=0.0, few_step=True), fine, first)
            else:
                path = self.path(tau, first)
                assert path is not None
                made = self.sample(fs.SASolver(2, 2, tau=tau, few_step=True), path.fine, first, path)
            torch.save(made, file)
        return torch.load(file)

    def cell(
        self, solver: fs.Solver, grid: fs.TimeGrid, first: int, path: BrownianPath | None, *, measure: bool
    ) -> Path:
        """Return the file of a chunk of one solver on one grid; ``measure`` makes it where it is missing."""
        grid = grid if path is None else path.moved(grid)
        words = repr((self.name, repr(solver), [round(float(t), 9) for t in grid.times], first))
        file = self.cache / f"{hashlib.sha1(words.encode()).hexdigest()}.npz"
        if measure and not file.exists():
            made = self.sample(solver, grid, first, path)
            error = (made - self.solution(tau_of(solver), first)).square().flatten(1).mean(1).sqrt()
            pictures = to_uint8(made) if self.conditional else np.zeros(0, np.uint8)
            with file.with_suffix(".part").open("wb") as part:
                np.savez_compressed(part, error=error.numpy(), pictures=pictures)
            file.with_suffix(".part").rename(file)
        return file

    def _spectrum(self) -> Spectrum:
        """Return the spectrum of 64 samples from other noise, 10 calls each."""
        file = self.cache / f"{self.name}-spectrum.json"
        if not file.exists():
            classes = torch.arange(SAMPLES) % 10 if self.conditional else None
            grid, made = fs.grids.early_end(self.process, 10), []
            for first in range(0, SAMPLES, CHUNK):
                seeds = range(OTHER_SEEDS + first, OTHER_SEEDS + first + CHUNK)
                cond = None if classes is None else classes[first : first + CHUNK]
                made.append(fs.sample(self.model, fs.UniPC(2), grid, seeds=seeds, cond=cond))
            Spectrum.of(torch.cat(made), classes=classes).save(file)
        return Spectrum.load(file)


def files_of(subject: Subject, name: str, grid: str, calls: int, noises: int, *, measure: bool) -> list[Path]:
    """Return the files of a solver's cells on one grid, a chunk each; those that are missing are measured if wanted."""
    solver = SOLVERS[name]
    tau, made = tau_of(solver), GRIDS[grid](subject.process, solver, calls, subject.spectrum)
    assert solver.plan(made).nfe == calls
    found = []
    for first in range(0, noises, CHUNK):
        path = subject.path(tau, first)
        file = subject.cell(solver, made, first, path, measure=measure)
        if not file.exists():
            break
        found.append(file)
    return found


def figures_of(subject: Subject, name: str, grid: str, calls: int, most: int) -> dict[str, float]:
    """Return the figures of a solver on one grid, of as many noises as were measured, to four digits."""
    files = files_of(subject, name, grid, calls, most, measure=False)
    made = GRIDS[grid](subject.process, SOLVERS[name], calls, subject.spectrum)
    predicted = SpectralError(subject.process, SOLVERS[name], subject.spectrum).likely(made.times[None])
    found = {"noises": CHUNK * len(files), "predicted": float(predicted[0])}
    if files:
        parts = [np.load(file) for file in files]
        errors = np.concatenate([part["error"] for part in parts])
        found |= {"mean": float(errors.mean()), "median": float(np.median(errors))}
        if subject.conditional:
            pictures = torch.from_numpy(np.concatenate([part["pictures"] for part in parts]))
            scaled = pictures.movedim(-1, 1).to(torch.float32) / 127.5 - 1.0
            found["fd"] = frechet_distance(features("fashion-mnist")(scaled), reference("fashion-mnist"))
    return {key: value if key == "noises" else float(f"{value:.4g}") for key, value in found.items()}


def main() -> None:
    """Measure what is missing, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--noises", type=int, default=MOST)
    parser.add_argument("--calls", type=int, choices=CALLS, nargs="+", default=list(CALLS))
    parser.add_argument("--model", choices=list(time_steps.MODELS), action="append")
    parser.add_argument("--solver", choices=list(SOLVERS), action="append")
    parser.add_argument("--grid", choices=list(GRIDS), action="append")
    parser.add_argument("--cache", type=Path, default=Path("build/spectra"))
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    subjects = [Subject(name, args.cache) for name in args.model or time_steps.available()]
    for first in [] if args.report else range(CHUNK, args.noises + 1, CHUNK):
        for name in args.solver or SOLVERS:
            for subject in subjects:
                for grid in args.grid or GRIDS:
                    for calls in args.calls:
                        files_of(subject, name, grid, calls, first, measure=True)
                print(subject.name, name, first, "noises", flush=True)
    if args.report:
        write(subjects, args.solver or list(SOLVERS))


def write(subjects: list[Subject], names: list[str]) -> None:
    """Write the figures of all that was measured of some solvers, all grids on the same noises."""
    results = figures.read("spectra")
    for subject in subjects:
        solvers: dict[str, Any] = results.get(subject.name, {}).get("solvers", {})
        for name in names:
            measured = {
                grid: {"noises": [CHUNK * len(files_of(subject, name, grid, n, MOST, measure=False)) for n in CALLS]}
                for grid in GRIDS
            }
            most = [shown_noises(measured, place) or MOST for place in range(len(CALLS))]
            solvers[name] = {}
            for grid in GRIDS:
                cells = [figures_of(subject, name, grid, *pair) for pair in zip(CALLS, most, strict=True)]
                keys = dict.fromkeys(key for cell in cells for key in cell)
                solvers[name][grid] = {key: [cell.get(key) for cell in cells] for key in keys}
        results[subject.name] = {"calls": list(CALLS), "solvers": solvers}
    figures.write("spectra", results)


if __name__ == "__main__":
    main()

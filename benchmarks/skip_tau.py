"""ρ of Skip-Tuning, its window of noise levels, and SA-Solver's τ searched together, on the embedded model.

    python -W ignore benchmarks/skip_tau.py [--num 600] [--calls 8 15] [--cache FOLDER]

``fs.skip_analysis.search`` on common seeds: SA-Solver of order 2, τ = 0, 0.4 and 1 throughout, on the grid even in λ to
the noise-free end; ρ of the deepest skip 0.5, 0.65, 0.8 and 1, scaled at all noise levels, where σ/α ≤ 1 and where
σ/α ≥ 1. The winner is compared with the best τ without tuning on as many fresh seeds. What was sampled is kept in
--cache, from where a stopped run goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import figures
import torch

import fewstep as fs
from fewstep.journal import journal
from fewstep.models.model import Model
from fewstep.skip_analysis import Frechet, SearchPoint, search

CALLS, TAUS = (8, 15), (0.0, 0.4, 1.0)
WINDOWS = (None, (None, 1.0), (1.0, None))
NAMES = ("all σ/α", "σ/α ≤ 1", "σ/α ≥ 1")
RHO = (0.5, 0.8, 3)
"""Lowest, highest, and how many."""


def measure(calls: int, num: int, cache: Path) -> dict[str, Any]:
    """Return the points of a search and its check."""
    model = fs.zoo.load("fashion-mnist")
    grid = fs.grids.uniform_logsnr(model.process, calls, end="zero")

    def objective(tau: float) -> Frechet:
        plan = fs.SASolver(2, 2, tau=tau, few_step=True).plan(grid)
        features, reference = fs.metrics.features("fashion-mnist"), fs.metrics.reference()
        return Frechet(Model(model), plan, features, reference, lambda seeds: [seed % 10 for seed in seeds], 100)

    low, high, points = RHO
    with journal(cache / f"{calls}.json") as begin:
        keep = begin({"benchmark": "skip_tau", "calls": calls, "num": num})
        found = search(
            model,
            {tau: objective(tau) for tau in TAUS},
            range(num),
            bottom=(low, high),
            windows=WINDOWS,
            method="grid",
            points=points,
            progress=lambda point: print(calls, point, flush=True),
            keep=keep,
        )
        (cache / f"{calls}.json").write_text(found.profile.to_json())
    check = found.check
    return {
        "num": num,
        "points": [[p.tau, _place(p), p.bottom, p.value] for p in found.points],
        "best": [found.best.tau, _place(found.best), found.best.bottom],
        "check": None if check is None else [check.untuned, check.tuned, check.low, check.high],
    }


def _place(point: SearchPoint) -> int:
    return WINDOWS.index(point.window)


def report() -> str:
    """Return a table for each number of calls, and the check."""
    return "\n\n".join(_report(calls, found) for calls, found in figures.read("skip_tau").items())


def _report(calls: str, found: dict[str, Any]) -> str:
    value = {(tau, place, rho): fd for tau, place, rho, fd in found["points"]}
    rhos = sorted({rho for _, _, rho in value} - {1.0})
    lines = [
        f"| {calls} calls: τ | skips scaled at | ρ = 1 | " + " | ".join(f"ρ = {rho:g}" for rho in rhos) + " |",
        "|---:|---|" + "---:|" * (len(rhos) + 1),
    ]
    least = min(value.values())
    for tau in TAUS:
        for place, name in enumerate(NAMES):
            cells = [value[tau, 0, 1.0], *(value[tau, place, rho] for rho in rhos)]
            shown = [f"**{fd:.3f}**" if fd == least else f"{fd:.3f}" for fd in cells]
            lines.append(f"| {tau:g} | {name} | " + " | ".join(shown) + " |")
    tau, place, rho = found["best"]
    if found["check"] is None:
        return "\n".join([*lines, "", "Nothing is better than no tuning."])
    untuned, tuned, low, high = found["check"]
    return "\n".join(
        [
            *lines,
            "",
            f"On {found['num']} fresh seeds the best, τ = {tau:g} and ρ = {rho:g} at {NAMES[place]}, has {tuned:.3f}, "
            f"the best τ without tuning {untuned:.3f}: a difference of {tuned - untuned:.3f} (95 %: {low:.3f} to "
            f"{high:.3f}).",
        ]
    )


def main() -> None:
    """Search, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num", type=int, default=600)
    parser.add_argument("--calls", type=int, nargs="+", default=list(CALLS))
    parser.add_argument("--cache", type=Path, default=Path("build/skip_tau"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.cache.mkdir(parents=True, exist_ok=True)
    for calls in args.calls:
        figures.write("skip_tau", {**figures.read("skip_tau"), str(calls): measure(calls, args.num, args.cache)})


if __name__ == "__main__":
    main()

"""What calibration gains: error and Fréchet distance of fitted plans beside the best untuned samplers.

    python -W ignore benchmarks/calibration.py [--model NAME] [--stage STAGE]

On the embedded model and, where the shared folder is present, lfw32-ddpm. Errors are root mean squares to the
reference solution (200 calls or more of a fourth-order method, to the noise-free end). All ``SOLVERS`` on all grids of
time_steps.py are measured on the noises of seeds 0 to 63; the best of them, and the plans that are "calibrated" on the
quadratic grid and "searched" (the times too), again on the fresh noises of seeds 64 to 319. No calibration sees either:
they draw from 10⁹ on. Fréchet distances are of the embedded features of 5,000 images (network in bfloat16, for all
alike) to Fashion-MNIST's training images.

Without --stage all of them run. What is measured is kept under build/ and not measured again. The time is that of all
cores and wants a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from calibration_report import OWN, PUBLISHED, best, write_report
from time_steps import GRIDS, MODELS, available

import fewstep as fs
from fewstep.metrics.error import rmse_interval, squared_errors

CALLS = (10, 5, 8, 6, 4, 15, 20, 3)
SOLVERS = {"UniPC-3": fs.UniPC(3), "UniPC-2": fs.UniPC(2), "DPM++3": fs.DPMSolverPP(3), "DPM++2": fs.DPMSolverPP(2)}
SOLVERS |= {"iPNDM-3": fs.IPNDM(3), "iPNDM-4": fs.IPNDM(4)}
SOLVERS |= {f"{name}, analytic first": replace(solver, analytic_first=True) for name, solver in SOLVERS.items()}
"""Those that begin with a formula take one step more for the same calls."""
HELD_OUT, FRESH = range(64), range(64, 320)
FINE = 200
STAGES = ("error", "fresh", "settings", "guidance", "fd", "time", "report")
NUM, IMAGES, BATCH = 64, 5000, 32
CACHE = Path(__file__).resolve().parents[1] / "build" / "calibration"


class Bench:
    """One model with its reference solution; figures are kept in a folder."""

    def __init__(self, name: str) -> None:
        self.name, self.folder = name, CACHE / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model = MODELS[name]()
        self.process = self.model.process
        self.quadratic = lambda calls: fs.grids.quadratic_time(self.process, calls, end="zero")

    def kept(self, key: str, make: Callable[[], Any]) -> Any:
        """Return what ``make`` makes, from the file of an earlier run if there is one."""
        path = self.folder / f"{key}.json"
        if not path.exists():
            made = make()
            path.write_text(json.dumps(made, indent=1) + "\n")
            print(self.name, key, made if len(str(made)) < 300 else "", flush=True)
        return json.loads(path.read_text())

    def samples(self, plan: fs.Plan, model: fs.DataPredictor, every: range) -> torch.Tensor:
        """Return the samples of the seeds, classes in turn."""
        parts = []
        for start in range(0, len(every), BATCH):
            seeds = every[start : start + BATCH]
            x_T = fs.initial_state(fs.TimeGrid(plan.process, plan.times), self.model.shape, seeds)
            cond = torch.tensor(seeds) % 10 if self.model.num_classes else None
            parts.append(fs.execute(plan, model, x_T, seeds=seeds, cond=cond))
        return torch.cat(parts)

    def exact(self, model: fs.DataPredictor, key: str, seeds: range = HELD_OUT) -> torch.Tensor:
        """Return the reference solution of the seeds."""
        path = self.folder / f"exact{key}.pt"
        if not path.exists():
            fine = fs.grids.uniform_logsnr(self.process, FINE, end="zero")
            plan = fs.SASolver(4, 4, tau=0.0, few_step=True).plan(fine)
            torch.save(self.samples(plan, model, seeds), path)
        return torch.load(path)

    def error(self, plan: fs.Plan, model: fs.DataPredictor | None = None, key: str = "") -> list[float]:
        """Return RMSE to the reference, and its 95 % interval."""
        model = model or self.model
        return list(rmse_interval(squared_errors(self.samples(plan, model, HELD_OUT), self.exact(model, key))))

    def untuned(self, calls: int) -> dict[str, list[float]]:
        """Return the error of every solver on every grid; the published grid is UniPC-3's."""
        found: dict[str, list[float]] = {}
        for grid in GRIDS:
            found |= self.kept(f"untuned-{calls}-{grid}", partial(self.untuned_on, grid, calls))
        return found

    def untuned_on(self, grid: str, calls: int) -> dict[str, list[float]]:
        """Return the error of every solver on one grid."""
        solvers = {"UniPC-3": SOLVERS["UniPC-3"]} if grid.startswith("published") else SOLVERS
        return {f"{name}, {grid}": self.error(self.untuned_plan(name, grid, calls)) for name in solvers}

    def recipe(self, key: str, calls: int, model: fs.DataPredictor | None = None, **settings: Any) -> fs.Recipe:
        """Return a recipe, from the file of an earlier run if there is one."""
        path = self.folder / f"recipe-{key}.json"
        if not path.exists():
            grid = self.quadratic(calls)
            recipe = fs.calibrate(
                model or self.model, fs.UniPC(3), grid, **{"num": NUM, "analytic": 0, "loss": "square", **settings}
            )
            recipe.save(path)
            print(self.name, key, recipe.report, flush=True)
        return fs.load_recipe(path)

    def fitted(self, key: str, calls: int, model: fs.DataPredictor | None = None, **settings: Any) -> dict[str, Any]:
        """Return the error, its interval, and the network calls of a calibration."""
        recipe = self.recipe(key, calls, model, **settings)
        spent = recipe.report.calls if recipe.report else 0
        return {"error": self.error(recipe.plan, model, "@".join(key.split("@")[1:])), "calls": spent}

    def errors(self) -> None:
        """Measure all numbers of calls."""
        for calls in CALLS:
            self.untuned(calls)
            self.kept(f"calibrated-{calls}", lambda calls=calls: self.fitted(f"calibrated-{calls}", calls))
            self.kept(f"searched-{calls}", lambda calls=calls: self.fitted(f"searched-{calls}", calls, search=True))

    def fresh(self, calls: int) -> dict[str, list[float]]:
        """Return RMSE, its interval and the median noise's error on fresh noises, for what was best on the others."""
        untuned = self.untuned(calls)
        peers = {name: error for name, error in untuned.items() if not name.endswith(OWN)}
        plans = {name: self.plan(name, calls) for name in (best(peers), best(untuned), "calibrated", "searched")}
        exact = self.exact(self.model, "-fresh", FRESH)
        found: dict[str, list[float]] = {}
        for name, plan in plans.items():
            squared = squared_errors(self.samples(plan, self.model, FRESH), exact)
            found[name] = [*rmse_interval(squared), float(squared.median()) ** 0.5]
        return found

    def plan(self, name: str, calls: int) -> fs.Plan:
        """Return the plan of "calibrated", "searched", or a solver on a grid."""
        if name in ("calibrated", "searched"):
            return self.recipe(f"{name}-{calls}", calls, search=name == "searched").plan
        solver, _, grid = name.rpartition(", ")
        return self.untuned_plan(solver, grid, calls)

    def untuned_plan(self, name: str, grid: str, calls: int) -> fs.Plan:
        """Return the plan of so many calls of a solver on a grid."""
        solver = SOLVERS[name]
        return solver.plan(GRIDS[grid](self.process, solver, calls + int(solver.analytic_first)))

    def settings(self) -> None:
        """Measure at 6 calls, without a search, what each setting does; the defaults are "calibrated"."""
        chosen: dict[str, dict[str, Any]] = {f"num={num}": {"num": num} for num in (8, 16, 32, 64, 128, 256)}
        chosen |= {f"history={history}": {"history": history} for history in (1, 2, 3, 5)}
        chosen |= {f"analytic={count}": {"analytic": count} for count in range(4)}
        chosen |= {f"loss={loss}": {"loss": loss} for loss in ("square", "root")}
        chosen["objective=local"] = {"objective": "local"}
        for name, some in chosen.items():
            self.kept(f"setting-{name}", lambda name=name, some=some: self.fitted(f"setting-{name}", 6, **some))

    def guided(self, scale: float) -> dict[str, Any]:
        """Return the errors at a guidance scale: untuned, calibrated there, and with the recipe of scale 1."""
        model, key = fs.zoo.load(self.name, guidance_scale=scale), f"@guidance-{scale:g}"
        own = {
            name: self.error(solver.plan(self.quadratic(6)), model, key[1:])
            for name, solver in {"UniPC-3": SOLVERS["UniPC-3"], "DPM++2": SOLVERS["DPM++2"]}.items()
        }
        unguided = self.error(self.recipe("calibrated-6", 6).plan, model, key[1:])
        return {"untuned": own, "unguided": unguided, "calibrated": self.fitted(f"calibrated-6{key}", 6, model)}

    def timed(self, search: bool) -> dict[str, float]:
        """Return the seconds and calls of a calibration for 8 calls."""
        report = fs.calibrate(self.model, fs.UniPC(3), self.quadratic(8), num=NUM, search=search).report
        assert report is not None
        return {"seconds": report.seconds, "calls": report.calls, "gain": report.gain}

    def transferred(self, other: Bench) -> None:
        """Measure the recipes of another model on this one."""
        for calls in CALLS:
            for kind in ("calibrated", "searched"):
                key = f"{kind}-{calls}"
                if (other.folder / f"recipe-{key}.json").exists():
                    plan = fs.load_recipe(other.folder / f"recipe-{key}.json").plan
                    self.kept(f"transferred-{key}", lambda plan=plan: {"error": self.error(plan)})

    def distances(self) -> None:
        """Measure Fréchet distances of the best untuned sampler, the published grid and the fitted plans."""
        model, extractor = fs.zoo.load(self.name, dtype=torch.bfloat16), fs.metrics.features(self.name)
        reference = fs.metrics.reference(self.name)
        for few, kind in itertools.product((CALLS[:5], CALLS[5:]), ("best", "searched", "calibrated", PUBLISHED)):
            for calls in few:
                name = best(self.untuned(calls)) if kind == "best" else kind
                plan = self.plan(name, calls)
                self.kept(f"fd-{calls}-{name}", partial(self.distance, plan, model, extractor, reference))

    def distance(self, plan: fs.Plan, model: fs.DataPredictor, extractor: Any, reference: Any) -> float:
        """Return the Fréchet distance of images rounded to 256 levels."""
        images = fs.metrics.from_uint8(fs.metrics.to_uint8(self.samples(plan, model, range(IMAGES))))
        made = fs.metrics.moments_of((extractor(part) for part in images.split(500)), extractor.tag)
        return fs.metrics.frechet_distance(made, reference)


def main() -> None:
    """Measure what is missing, then write tables and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(MODELS), action="append")
    parser.add_argument("--stage", choices=STAGES, action="append")
    arguments = parser.parse_args()
    stages = arguments.stage or list(STAGES)
    began = time.perf_counter()
    benches = {name: Bench(name) for name in arguments.model or available()}
    for name, bench in benches.items():
        if "error" in stages:
            bench.errors()
        if "fresh" in stages:
            for calls in CALLS:
                bench.kept(f"fresh-{calls}", partial(bench.fresh, calls))
        if "settings" in stages:
            bench.settings()
            for other in set(benches) - {name}:
                bench.transferred(benches[other])
        if "guidance" in stages and name == "fashion-mnist":
            for scale in (2.0, 4.0):
                bench.kept(f"guidance-{scale:g}", partial(bench.guided, scale))
        if "time" in stages:
            bench.kept("time-8-calibrated", lambda bench=bench: bench.timed(search=False))
            bench.kept("time-8-searched", lambda bench=bench: bench.timed(search=True))
        if "fd" in stages and name == "fashion-mnist":
            bench.distances()
    print(f"{time.perf_counter() - began:.0f} s")
    if "report" in stages:
        write_report(CACHE, available())


if __name__ == "__main__":
    main()

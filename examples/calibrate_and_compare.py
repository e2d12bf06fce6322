"""A sampler fitted to a model by forward calls alone, saved, loaded, and compared with the plain one.

python examples/calibrate_and_compare.py

The settings are small, so that the script takes seconds; the defaults of ``fs.calibrate`` are better and take a minute.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import fewstep as fs

CALLS, NOISES = 3, range(12)
CLASSES = [seed % 10 for seed in NOISES]


def main() -> None:
    """Calibrate, keep the recipe, and measure both plans on noises that the fit has not seen."""
    model = fs.zoo.load("fashion-mnist")
    solver = fs.UniPC(order=2)
    grid = fs.grids.quadratic_time(model.process, CALLS)
    x_T = fs.initial_state(grid, model.shape, NOISES)

    fitted = fs.calibrate(model, solver, grid, num=8, reference_steps=8, seeds=range(1000, 1008))
    print(fitted.report, "\n")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.json"
        fitted.save(path)
        recipe = fs.load_recipe(path)

    fine = fs.grids.uniform_logsnr(model.process, 16)
    solution = fs.sample(model, fs.UniPC(order=3), fine, x_T, cond=CLASSES)
    for name, plan in {"plain": solver.plan(grid), "calibrated": recipe.plan}.items():
        error = (fs.execute(plan, model, x_T, cond=CLASSES) - solution).square().mean(dim=(1, 2, 3)).sqrt()
        print(f"{name:11} {plan.nfe} calls: median error to the model's own solution {float(torch.median(error)):.3f}")


if __name__ == "__main__":
    main()

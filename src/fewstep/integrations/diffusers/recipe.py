"""Recipes of ``fs.calibrate`` as schedulers: a fitted plan in place of a solver and a grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fewstep.errors import InputError
from fewstep.integrations.diffusers.formulation import OUTPUTS
from fewstep.plan import Plan
from fewstep.processes import EDM, Process, RectifiedFlow, VPDiscrete
from fewstep.recipe import Recipe
from fewstep.solvers import Solver
from fewstep.time_grid import TimeGrid

__all__ = ["DECIDED", "RecipeSolver", "agree", "process_settings"]

DECIDED = (
    "solver",
    "solver_order",
    "corrector_order",
    "solver_type",
    "disable_corrector",
    "lower_order_final",
    "tau",
    "tau_window",
    "eta",
    "grid",
    "error_power",
    "integer_timesteps",
)
"""Settings that a recipe decides."""


@dataclass(frozen=True)
class RecipeSolver(Solver):
    """A fitted plan as a solver, for its grid alone."""

    recipe: Recipe

    def table(self, grid: TimeGrid) -> Plan:
        """Return the fitted plan.

        Raises:
            InputError: if ``grid`` is of another process, or has other times.
        """
        ours = self.recipe.plan
        if not torch.equal(grid.times, ours.times):
            raise InputError(
                f"a recipe runs its {ours.steps} steps from first to last: leave timesteps, sigmas and "
                "strength out, or take a scheduler without a recipe."
            )
        if not agree(grid.process, ours.process, ours.times):
            raise InputError(f"the recipe was calibrated for {ours.process!r}, the pipeline is of {grid.process!r}.")
        return ours

    def __repr__(self) -> str:
        return f"a recipe of {self.recipe.plan.solver}"


def process_settings(recipe: Recipe) -> dict[str, Any]:
    """Return a scheduler's settings of the process and the prediction that a recipe was calibrated for.

    Raises:
        InputError: if diffusers' settings cannot be read off it.
    """
    names = {ours: theirs for theirs, ours in OUTPUTS.items()}
    prediction, process = recipe.model.get("prediction"), recipe.plan.process
    if prediction in names and isinstance(process, VPDiscrete):
        ratio = process.alphas_cumprod / torch.cat([torch.ones(1), process.alphas_cumprod[:-1]])
        betas = (1.0 - ratio).tolist()
        return {"prediction_type": names[prediction], "trained_betas": betas, "num_train_timesteps": len(betas)}
    if prediction == "flow" and isinstance(process, RectifiedFlow):
        return {"prediction_type": names[prediction], "flow_shift": process.shift}
    raise InputError(
        f"the recipe is of {process!r} with a network that predicts {prediction!r}: give the pipeline's settings, "
        "FewStepScheduler.from_recipe(path, pipe.scheduler.config)."
    )


def agree(one: Process, other: Process, times: torch.Tensor) -> bool:
    """Return whether two processes have the same α² and σ² at ``times``, but for rounding to float32 of either.

    EDM's networks must start at the same level too, since σ = t in all of them.
    """
    if isinstance(one, EDM) and abs(float(times[0]) / one.t_max - 1.0) > 1e-3:
        return False
    return all(
        torch.allclose(getattr(one, name)(times) ** 2, getattr(other, name)(times) ** 2, rtol=1e-5, atol=2e-6)
        for name in ("alpha", "sigma")
    )

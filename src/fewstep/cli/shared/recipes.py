"""``--recipe``: a calibrated plan in place of a solver, a grid and a number of steps."""

from __future__ import annotations

from pathlib import Path

from fewstep.denoiser import DataPredictor
from fewstep.errors import InputError
from fewstep.fingerprint import warn_if_other_model
from fewstep.plan import Plan
from fewstep.recipe import Recipe

__all__ = ["recipe_plan"]


def recipe_plan(recipe: Recipe, path: Path, denoiser: DataPredictor) -> Plan:
    """Return the plan of a recipe for this model; warn if it is of another model or guidance scale.

    Raises:
        InputError: if the recipe is of another process.
    """
    process = recipe.plan.process
    if process != denoiser.process:
        raise InputError(f"{str(path)!r} was calibrated for {process!r}, the model is of {denoiser.process!r}.")
    warn_if_other_model(recipe, denoiser)
    return recipe.plan

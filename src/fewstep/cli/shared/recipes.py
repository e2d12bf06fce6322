"""``--recipe``: a calibrated plan in place of a solver, a grid and a number of steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fewstep.errors import InputError

if TYPE_CHECKING:
    from fewstep.denoiser import DataPredictor
    from fewstep.plan import Plan

__all__ = ["recipe_plan", "refuse_besides"]


def recipe_plan(path: Path, denoiser: DataPredictor) -> Plan:
    """Return the plan of a recipe for this model; a warning tells of another model or guidance scale.

    Raises:
        InputError: if the file is no recipe, or of another process.
    """
    from fewstep.fingerprint import warn_if_other_model
    from fewstep.recipe import load_recipe

    recipe = load_recipe(path)
    process = recipe.plan.process
    if process != denoiser.process:
        raise InputError(f"{str(path)!r} was calibrated for {process!r}, the model is of {denoiser.process!r}.")
    warn_if_other_model(recipe, denoiser)
    return recipe.plan


def refuse_besides(context: typer.Context, recipe: Path, options: Sequence[str]) -> None:
    """Refuse ``options`` on the command line that a recipe decides.

    Raises:
        InputError: if one of them was given.
    """
    sources = {name: context.get_parameter_source(name) for name in options}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if given:
        raise InputError(
            f"--recipe {recipe} holds its solver, grid and number of steps: leave --{given[0]} out, "
            "or calibrate for other settings."
        )

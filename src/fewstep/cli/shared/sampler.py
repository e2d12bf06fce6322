"""``--solver``, ``--grid``, ``--steps`` or ``--recipe``: the plan that samples a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep import grids, solvers
from fewstep.cli.settings.options import RecipeSamplerSettings, SamplerSettings, SolverSettings
from fewstep.cli.shared import profiles
from fewstep.cli.shared.recipes import recipe_plan
from fewstep.grids.spectral import check_spectrum
from fewstep.guidance import evaluations
from fewstep.models.model import Model
from fewstep.plan import Plan
from fewstep.recipe import Recipe, load_recipe
from fewstep.recommended import STEPS, at_experts, bound_for, recommended
from fewstep.skip import Profile
from fewstep.solvers import Solver
from fewstep.time_grid import TimeGrid

__all__ = ["Asked", "ChosenSampler"]


@dataclass(frozen=True)
class ChosenSampler:
    """A plan, and the words that describe it.

    Attributes:
        plan: what is executed.
        words: solver, grid and steps, or the recipe, as a manifest keeps them.
        skip: how the model's skip connections are scaled, or None.
    """

    plan: Plan
    words: dict[str, Any]
    skip: Profile | None = None

    def __str__(self) -> str:
        name = self.words.get("recipe") or f"{self.words['solver']} on {self.words['grid']}"
        source = None if self.skip is None else self.skip.origin.get("source")
        by = f", skips from ρ = {self.skip.bottom:.3g} by {source}" if self.skip is not None and source else ""
        return f"{name}, {self.plan.steps} steps, {self.plan.nfe} network calls{by}"

    def on_samples_of(self, model: Model, conditional: bool) -> str:
        """Return the description with the evaluations that guidance takes, where there is any."""
        made = evaluations(self.plan, model.denoiser, conditional=conditional)
        return str(self) if made == self.plan.nfe else f"{self}, {made} evaluations with guidance"


@dataclass(frozen=True)
class Asked:
    """The sampler of a command line, read as far as it can be before the model is loaded.

    Attributes:
        solver: as it is written, or None: the recommended one.
        grid: likewise.
        steps: the number of intervals.
        recipe: what is used instead of the three, and its file.
        skip: how the model's skip connections are scaled, "auto" for ρ by the number of calls, or None.
    """

    solver: str | None
    grid: str | None
    steps: int
    recipe: tuple[Recipe, Path] | None = None
    skip: Profile | str | None = None

    @classmethod
    def of(cls, settings: SolverSettings, steps: int | None = None) -> Asked:
        """Return what the settings ask for.

        Args:
            settings: of the command.
            steps: the number of intervals, of a command that has several.

        Raises:
            InputError: if there is no such solver, grid, recipe or profile, or a grid's or recipe's file has another
                number of steps.
        """
        if settings.solver is not None:
            solvers.named(settings.solver)
        asked = settings.steps if isinstance(settings, SamplerSettings) else steps
        given = None if settings.grid is None else grids.read(settings.grid, asked)
        steps = STEPS if asked is None else asked
        steps = steps if given is None else given.steps
        recipe: tuple[Recipe, Path] | None = None
        skip: Profile | str | None = None
        if isinstance(settings, RecipeSamplerSettings):
            recipe = None if settings.recipe is None else (load_recipe(settings.recipe, asked), settings.recipe)
            skip = profiles.read(settings.skip)
            if skip is None and recipe is not None:
                skip = profiles.of_recipe(recipe[0])
        return cls(settings.solver, settings.grid, steps, recipe, skip)

    def guided(self, model: Model, guidance: float | str | None) -> Model:
        """Return the model guided as the recipe says, unless another scale is given.

        Args:
            model: as it is loaded, with ``guidance`` if that is given.
            guidance: the one that is asked for, or None.

        Raises:
            InputError: if the model cannot be guided so.
        """
        if self.recipe is None or guidance is not None:
            return model
        return model.guided(self.recipe[0].guidance)

    def on(self, model: Model) -> ChosenSampler:
        """Return the plan for a model.

        Raises:
            InputError: if solver, grid or recipe do not fit the model.
        """
        if self.recipe is not None:
            plan, words = recipe_plan(*self.recipe, model.denoiser), {"recipe": str(self.recipe[1])}
        else:
            solver, grid = self.chosen(model)
            plan, words = solver.plan(grid), self.words(model)
        return ChosenSampler(plan, words, profiles.at_calls(self.skip, plan.nfe))

    def chosen(self, model: Model) -> tuple[Solver, TimeGrid]:
        """Return the solver and the grid for a model.

        Raises:
            InputError: if one of them does not fit the model.
        """
        words = self.words(model)
        solver = solvers.named(words["solver"])
        check_spectrum(words["grid"], model.denoiser.shape)
        return solver, grids.named(words["grid"], model.denoiser.process, self.steps, solver=solver)

    def words(self, model: Model) -> dict[str, Any]:
        """Return solver, grid and steps: those asked for, else those recommended for the model."""
        latent = model.decode is not None
        rule = recommended(model.denoiser.process, self.steps, latent=latent)
        grid = bound_for(self.grid or rule.grid, latent=latent)
        grid = at_experts(grid, getattr(model.denoiser, "boundary", None))
        return {"solver": self.solver or rule.solver, "grid": grid, "steps": self.steps}

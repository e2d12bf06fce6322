"""The cells of a comparison: what is sampled in each, and the command that samples it again."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from fewstep.cli.shared.profiles import at_calls, of_recipe, read, settings_of, tuned_by
from fewstep.cli.shared.recipes import recipe_plan
from fewstep.denoiser import DataPredictor
from fewstep.errors import InputError
from fewstep.fingerprint import guidance_scale
from fewstep.grids import named as grids_named
from fewstep.models.model import Model
from fewstep.plan import Plan
from fewstep.recipe import Recipe, load_recipes
from fewstep.skip import Profile
from fewstep.solvers import named as solver_named

__all__ = [
    "Cell",
    "Commands",
    "Planned",
    "Sampler",
    "check_skips",
    "peer_cells",
    "planned_cells",
    "recipe_cells",
    "scaled",
]

SHARD = 1024
"""The samples in a shard of ``fewstep generate``."""


class Sampler(Protocol):
    """What turns seeds into images of a model."""

    @property
    def nfe(self) -> int:
        """The network calls of one sample."""

    @property
    def stochastic(self) -> bool:
        """Whether noise is added on the way."""

    @property
    def identity(self) -> str:
        """All that decides the samples, but model and seeds."""

    @property
    def levels(self) -> list[float]:
        """σ/α at each time, from noise to data; infinite at pure noise."""

    @property
    def call_times(self) -> list[float]:
        """The time of each network call."""

    def draw(self, model: Model, seeds: Sequence[int], conditions: Any) -> Tensor:
        """Return one image for each seed, [n, C, H, W] in [−1, 1]."""


@dataclass(frozen=True)
class Planned:
    """A plan as a sampler."""

    plan: Plan

    @property
    def nfe(self) -> int:
        """The network calls of one sample."""
        return self.plan.nfe

    @property
    def stochastic(self) -> bool:
        """Whether noise is added on the way."""
        return self.plan.stochastic

    @property
    def identity(self) -> str:
        """The plan's text."""
        return self.plan.to_json()

    @property
    def levels(self) -> list[float]:
        """σ/α at each time, from noise to data."""
        return (-self.plan.grid.half_logsnr).exp().tolist()

    @property
    def call_times(self) -> list[float]:
        """The time of each network call."""
        return self.plan.call_times.tolist()

    def draw(self, model: Model, seeds: Sequence[int], conditions: Any) -> Tensor:
        """Return one image for each seed, [n, C, H, W] in [−1, 1]."""
        return model.draw(self.plan, seeds, conditions)


@dataclass(frozen=True)
class Cell:
    """One solver on one grid of one number of steps.

    Attributes:
        solver: its spec, as it was asked for.
        grid: its spec, likewise.
        steps: the intervals of the grid.
        sampler: what is run.
        words: the beginning of the command that samples it again.
        skip: how the model's skip connections are scaled in it, or None.
    """

    solver: str
    grid: str
    steps: int
    sampler: Sampler
    words: tuple[str, ...]
    skip: Profile | None = None

    @property
    def name(self) -> str:
        """The name of the files that keep its figures and first images: a hash of what it is."""
        return f"cell-{hashlib.sha256((self.sampler.identity + self.network).encode()).hexdigest()[:16]}"

    @property
    def network(self) -> str:
        """What makes its network another than the model's: the profile of its skips, or nothing."""
        return "" if self.skip is None else json.dumps(settings_of(self.skip))


def planned_cells(
    denoiser: DataPredictor, solvers: Sequence[str], grids: Sequence[str], counts: Sequence[int]
) -> list[Cell]:
    """Return the cells of every solver on every grid at every number of steps.

    Raises:
        InputError: if a solver or a grid is unknown, or refuses its settings.
    """
    chosen = {spec: solver_named(spec) for spec in solvers}
    return [
        Cell(
            spec,
            grid,
            count,
            Planned(solver.plan(grids_named(grid, denoiser.process, count, solver=solver))),
            ("generate", "--solver", spec, "--grid", grid, "--steps", str(count)),
        )
        for spec, solver in chosen.items()
        for grid in grids
        for count in counts
    ]


def recipe_cells(denoiser: DataPredictor, recipes: Sequence[str]) -> list[Cell]:
    """Return a cell for each recipe of ``fewstep calibrate``, of a book all of them.

    Raises:
        InputError: if a file is no recipe of this model's process, or it holds another guidance.
    """
    found = []
    for path in recipes:
        held = load_recipes(path)
        for recipe in held:
            _check_guidance(recipe, path, denoiser)
            plan = recipe_plan(recipe, Path(path), denoiser)
            words = ("generate", "--recipe", path, *(("--steps", str(plan.nfe)) if len(held) > 1 else ()))
            found.append(Cell(path, "its own", plan.steps, Planned(plan), words, of_recipe(recipe)))
    return found


def scaled(cells: Sequence[Cell], option: str) -> list[Cell]:
    """Return the cells with their skips scaled as ``--skip`` says, in place of what a recipe says of them.

    Raises:
        InputError: if it is no profile.
    """
    skip = read(option)
    return [
        replace(cell, skip=at_calls(skip, cell.sampler.nfe), words=(*cell.words, "--skip", option)) for cell in cells
    ]


def check_skips(cells: Sequence[Cell], denoiser: DataPredictor) -> None:
    """Refuse skips that the model has not, before any cell is measured.

    Raises:
        InputError: if the model has no skips, or a profile is of another number of them.
    """
    for skip in {cell.network: cell.skip for cell in cells}.values():
        if skip is not None:
            tuned_by(skip, denoiser).remove()


def _check_guidance(recipe: Recipe, path: str, denoiser: DataPredictor) -> None:
    """Refuse a recipe for another guidance than the table's."""
    if recipe.guidance is not None and recipe.guidance != guidance_scale(denoiser):
        raise InputError(
            f"{path!r} holds the guidance {recipe.guidance}, the table has {guidance_scale(denoiser)}: compare with "
            f"--guidance {recipe.guidance}."
        )


def peer_cells(denoiser: DataPredictor, peers: Sequence[str], counts: Sequence[int]) -> list[Cell]:
    """Return the cells of diffusers' schedulers, each with its timesteps.

    Raises:
        InputError: if a peer is unknown, or the process is not variance preserving with training steps.
        MissingPackageError: if diffusers is not installed.
    """
    if not peers:
        return []
    from fewstep.integrations.diffusers.peers import Peer  # It needs diffusers.

    return [
        Cell(
            f"diffusers:{name}",
            "its own",
            count,
            Peer(name, count, denoiser.process),
            ("compare", "--peers", name, "--solvers", "", "--steps", str(count)),
        )
        for name in peers
        for count in counts
    ]


@dataclass(frozen=True)
class Commands:
    """The command lines that give the samples of a comparison's cells again.

    Attributes:
        shared: the options that ``fewstep generate`` and ``fewstep compare`` have in common.
        generate: those of ``fewstep generate`` alone, for plans.
        compare: those of ``fewstep compare`` alone, for diffusers' schedulers.
    """

    shared: tuple[str, ...]
    generate: tuple[str, ...]
    compare: tuple[str, ...]

    def again(self, cell: Cell, batch_size: int) -> str:
        """Return a command that gives the same images for the same seeds, to the bit on the same machine."""
        command = cell.words[0]
        words = ["fewstep", *cell.words, *self.shared, *getattr(self, command), "--batch-size", str(batch_size)]
        if command == "generate" and SHARD % batch_size:  # a shard begins a batch, and batches are to be the same
            words += ["--shard-size", str(batch_size * max(1, SHARD // batch_size))]
        return shlex.join([*words, "--out", cell.name])

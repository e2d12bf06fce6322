"""The recipe: a plan that was fitted to a model, with the report of the fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field, field_validator

from fewstep.checks import shown
from fewstep.errors import InputError
from fewstep.plan import FIRST_FORMAT, FORMAT, FirstStoredPlan, Plan, StoredPlan
from fewstep.storage import Plain, Schema, Stored, checked, json_text, parsed, read_json, versions
from fewstep.time_grid import TimeGrid

__all__ = ["SCHEMA", "Recipe", "RecipeBook", "Report", "RowFit", "interpolated", "load_recipe", "load_recipes"]

BOOK_FORMAT = "fewstep-recipe-book/1"
SCHEMA = 1
"""The version of a recipe's entries besides the plan."""
WITH_SETTINGS = 2
"""The version of those with settings of guidance and skips, which earlier readers would leave out."""
GAINS = ("gain", "gain_low", "gain_high")
"""Infinite where no error is left, which the JSON writes as null."""


@dataclass(frozen=True)
class RowFit:
    """The fit of a row: the number of features (0: the solver's row), the ridge, and the error to the reference.

    ``base`` and ``fitted`` are root mean squares of the next state's error with the solver's row and the fitted one,
    on noises that the fit had not seen.
    """

    width: int
    ridge: float
    base: float
    fitted: float


@dataclass(frozen=True)
class Report:
    """What a calibration did, measured on noises that no coefficient was fitted to.

    Attributes:
        before, after: RMSE of the final samples (or their features) to the reference, of the uncalibrated plan and
            of the result.
        gain: before/after; 1 if the uncalibrated plan was kept.
        gain_low, gain_high: 95 % bootstrap interval of the gain over the held-out noises.
        kept: the plan that is returned: "fitted", or "base", the solver's, where the fit was not significantly better.
        num, held_out: noises in all, and those held out; more than a quarter where the gain was in doubt.
        calls: network calls, one a sample, guidance within a call not counted.
        seconds: wall-clock time.
        rows: the fits row by row (of the row-by-row pass).
        tried: the starts of the grid search with their errors, best first; empty without a search.
        settings: the arguments, and what was chosen where they left a choice.
        quantiles_before, quantiles_after: median and 95th percentile of the held-out noises' RMSE.
        worst: the held-out noises with the largest errors of the fit, by number, and their share of the mean square.
    """

    before: float
    after: float
    gain: float
    gain_low: float
    gain_high: float
    kept: str
    num: int
    held_out: int
    calls: int
    seconds: float
    rows: tuple[RowFit, ...] = ()
    tried: tuple[tuple[str, float], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    quantiles_before: tuple[float, float] | None = None
    quantiles_after: tuple[float, float] | None = None
    worst: tuple[tuple[int, float], ...] = ()

    def __str__(self) -> str:
        return (
            f"RMSE {self._compared}to the reference {self.before:.4g} -> {self.after:.4g} "
            f"on {self.held_out} held-out noises: "
            f"{self.gain:.2f} times lower (95 %: {self.gain_low:.2f} to {self.gain_high:.2f}); "
            f"{self._spread()}"
            f"{self.calls} network calls, {self.seconds:.0f} s"
        )

    @property
    def _compared(self) -> str:
        return "of features " if self.settings.get("objective") == "features" else ""

    def _spread(self) -> str:
        """Return the median and the 95th percentile as text; empty if they are not known."""
        if self.quantiles_before is None or self.quantiles_after is None:
            return ""
        pairs = zip(("median", "95th percentile"), self.quantiles_before, self.quantiles_after, strict=True)
        return "".join(f"{name} {before:.4g} -> {after:.4g}; " for name, before, after in pairs)


class _StoredRowFit(Schema):
    width: int
    ridge: float
    base: float = Field(validation_alias=AliasChoices("base", "own"))
    fitted: float


class _StoredReport(Schema):
    model_config = ConfigDict(extra="forbid")

    before: float
    after: float
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    kept: Annotated[Literal["fitted", "base"], BeforeValidator(lambda word: "base" if word == "own" else word)]
    num: int
    held_out: int
    calls: int
    seconds: float
    rows: list[_StoredRowFit]
    tried: list[tuple[str, float]]
    settings: Plain
    quantiles_before: tuple[float, float] | None = None
    quantiles_after: tuple[float, float] | None = None
    worst: list[tuple[int, float]] = []

    def report(self) -> Report:
        """Return the report."""
        fits = tuple(RowFit(**row.model_dump()) for row in self.rows)
        gains = {name: math.inf if getattr(self, name) is None else getattr(self, name) for name in GAINS}
        return Report(**{**dict(self), **gains, "rows": fits, "tried": tuple(self.tried), "worst": tuple(self.worst)})


class _StoredModel(Schema):
    model_config = ConfigDict(extra="allow")

    network: str = ""
    fingerprint: str = ""
    prediction: str = ""
    guidance_scale: float | None = None


class _StoredCalibration(Schema):
    schema_version: Any = Field(alias="schema")
    model: _StoredModel
    report: _StoredReport | None
    versions: Plain = {}
    guidance: float | str | None = None
    skip: Plain | None = None
    tuning: Plain | None = None

    @field_validator("schema_version")
    @classmethod
    def _known(cls, version: Any) -> Any:
        if version not in (SCHEMA, WITH_SETTINGS):
            raise InputError(
                f"the recipe has schema version {version!r}, this version of fewstep reads {SCHEMA} and "
                f"{WITH_SETTINGS}: calibrate anew, or use the version that wrote it."
            )
        return version


class _StoredRecipe(StoredPlan):
    calibration: _StoredCalibration | None = None


class _FirstStoredRecipe(FirstStoredPlan):
    calibration: _StoredCalibration | None = None


FORMATS: Mapping[str, type[_StoredRecipe | _FirstStoredRecipe]] = {
    FORMAT: _StoredRecipe,
    FIRST_FORMAT: _FirstStoredRecipe,
}


class _StoredBook(Schema):
    recipes: list[_StoredRecipe]


@dataclass(frozen=True, eq=False)
class Recipe(Stored):
    """A plan whose coefficients were fitted to a model, what it was fitted to, and the report of the fit.

    ``fs.execute`` runs it like its plan.

    Attributes:
        plan: the fitted plan.
        report: what the calibration did; None if it is not known.
        model: what the plan was fitted to, JSON-able: the network's class and fingerprint, its prediction, the guidance
            scale.
        versions: of Python, torch and fewstep when it was made.
        guidance: the guidance that it runs with, as ``--guidance`` takes it: 3.0 or "3:interval=0.2:2"; None: as the
            model is guided.
        skip: the skip profile that it runs with, as its JSON object; None: the skips are left alone.
        tuning: how ``fs.tune`` found it, and its verdict, JSON-able.
    """

    plan: Plan
    report: Report | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=lambda: versions("fewstep", "torch"))
    guidance: float | str | None = None
    skip: Mapping[str, Any] | None = None
    tuning: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what ``to_json`` writes."""
        report = None
        if self.report is not None:
            gains = {name: value if math.isfinite(value := getattr(self.report, name)) else None for name in GAINS}
            report = {**asdict(self.report), **gains}
        more = {"guidance": self.guidance, "skip": self.skip, "tuning": self.tuning}
        return {
            **self.plan.to_dict(),
            "calibration": {
                "schema": SCHEMA if self.guidance is None and self.skip is None else WITH_SETTINGS,
                "model": dict(self.model),
                "report": report,
                "versions": dict(self.versions),
                **{name: value for name, value in more.items() if value is not None},
            },
        }

    def to_json(self) -> str:
        """Return the recipe: the plan's JSON, which ``Plan.from_json`` reads too, with the model and the report."""
        return json_text(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Return the recipe that ``to_json`` wrote, its plan bit for bit.

        Raises:
            InputError: if the text is no recipe, of another schema version, or its table is wrong.
        """
        return cls._of(parsed(text, FORMATS, "the recipe"))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Return the recipe that ``to_dict`` gave.

        Raises:
            InputError: as ``from_json``.
        """
        return cls._of(checked(data, FORMATS, "the recipe"))

    @classmethod
    def _of(cls, stored: _StoredRecipe | _FirstStoredRecipe) -> Recipe:
        calibration = stored.calibration
        if calibration is None:
            raise InputError("this is a plan, not a recipe: it holds no calibration; read it with Plan.from_json.")
        return cls(
            plan=Plan.of(stored),
            report=None if calibration.report is None else calibration.report.report(),
            model=calibration.model.model_dump(exclude_unset=True),
            versions=calibration.versions,
            guidance=calibration.guidance,
            skip=calibration.skip,
            tuning=calibration.tuning,
        )

    def __str__(self) -> str:
        found = "" if self.report is None else f": {self.report}"
        return f"recipe of {self.plan.solver or 'a plan'}, {self.plan.steps} steps, {self.plan.nfe} calls{found}"


def interpolated(recipes: Sequence[Recipe], guidance_scale: float) -> Recipe:
    """Return a recipe for a guidance scale between those of two recipes, without a call of the network.

    λ of the times and all coefficients are linear in the scale between the nearest two. It has no report: nothing was
    measured at this scale.

    Args:
        recipes: of one model at two guidance scales or more, as many rows and calls each.
        guidance_scale: from the least to the largest of theirs.

    Raises:
        InputError: if a recipe does not know its scale, two have the same one, their plans differ in more than numbers,
            or ``guidance_scale`` lies outside.
    """
    scales = [recipe.model.get("guidance_scale") for recipe in recipes]
    known = sorted(float(scale) for scale in scales if scale is not None)
    if len(known) < 2 or len(known) < len(scales) or len(set(known)) < len(known):
        raise InputError(f"the recipes are of guidance scales {scales}: give two or more, of different scales.")
    if not known[0] <= guidance_scale <= known[-1]:
        raise InputError(f"guidance_scale is {guidance_scale!r}: the recipes reach from {known[0]:g} to {known[-1]:g}.")
    order = sorted(recipes, key=lambda recipe: float(recipe.model["guidance_scale"]))
    place = min(sum(scale < guidance_scale for scale in known[1:-1]), len(known) - 2)
    low, high = order[place], order[place + 1]
    share = (guidance_scale - known[place]) / (known[place + 1] - known[place])
    plan = _between(low.plan, high.plan, share)
    return Recipe(plan, None, {**low.model, "guidance_scale": float(guidance_scale)})


def _between(low: Plan, high: Plan, share: float) -> Plan:
    """Return the plan at ``share`` of the way from one to another of the same structure."""
    alike = (
        low.process == high.process
        and low.prediction == high.prediction
        and torch.equal(low.interval, high.interval)
        and torch.equal(low.evaluate, high.evaluate)
        and torch.equal(low.times[[0, -1]], high.times[[0, -1]])
        and not (low.analytic or high.analytic)
    )
    if not alike:
        raise InputError(
            "the recipes' plans differ in more than numbers, or have analytic predictions: calibrate all with one "
            "solver, grid and number of steps, and analytic=0."
        )
    inner = torch.lerp(low.grid.half_logsnr[1:-1], high.grid.half_logsnr[1:-1], share)
    times = torch.cat([low.times[:1], low.process.time(inner), low.times[-1:]])
    width = max(plan.history_weights.shape[1] for plan in (low, high))
    wide = [torch.nn.functional.pad(p.history_weights, (0, width - p.history_weights.shape[1])) for p in (low, high)]
    return replace(
        low,
        grid=TimeGrid(low.process, low.times if torch.equal(low.times, high.times) else times),
        state_weight=torch.lerp(low.state_weight, high.state_weight, share),
        history_weights=torch.lerp(wide[0], wide[1], share),
        noise_scale=torch.lerp(low.noise_scale, high.noise_scale, share),
        fitted=True,
    )


@dataclass(frozen=True, eq=False)
class RecipeBook(Stored):
    """Recipes of one model for several numbers of network calls.

    Args:
        recipes: in any order.

    Raises:
        InputError: if there are none, or two of them have the same number of calls.
    """

    recipes: tuple[Recipe, ...]

    def __post_init__(self) -> None:
        """Put the recipes in order of their calls."""
        if not isinstance(self.recipes, (tuple, list)) or not all(isinstance(one, Recipe) for one in self.recipes):
            raise InputError(f"recipes is {shown(self.recipes)}: give a tuple of fs.Recipe.")
        recipes = tuple(sorted(self.recipes, key=lambda recipe: recipe.plan.nfe))
        calls = [recipe.plan.nfe for recipe in recipes]
        if not calls or len(set(calls)) < len(calls):
            raise InputError(
                f"the book has recipes of {calls} calls: give at least one, with different numbers of calls."
            )
        object.__setattr__(self, "recipes", recipes)

    @property
    def calls(self) -> tuple[int, ...]:
        """The numbers of network calls that there are recipes of, rising."""
        return tuple(recipe.plan.nfe for recipe in self.recipes)

    def __getitem__(self, calls: int) -> Recipe:
        """Return the recipe of ``calls`` network calls.

        Raises:
            InputError: if there is none; it names those there are.
        """
        for recipe in self.recipes:
            if recipe.plan.nfe == calls:
                return recipe
        known = ", ".join(map(str, self.calls))
        raise InputError(f"the book has no recipe of {calls!r} calls: take one of {known}.")

    def chosen(self, steps: int | None) -> Recipe:
        """Return the recipe of ``steps`` calls.

        Raises:
            InputError: if there is none, or ``steps`` is None; it names those there are.
        """
        if steps is None:
            known = ", ".join(map(str, self.calls))
            raise InputError(f"this is a book of recipes: give the number of steps, one of {known}.")
        return self[steps]

    def to_json(self) -> str:
        """Return the book as JSON; ``from_json`` gives the same recipes back, bit for bit."""
        return json_text({"format": BOOK_FORMAT, "recipes": [recipe.to_dict() for recipe in self.recipes]})

    @classmethod
    def from_json(cls, text: str) -> RecipeBook:
        """Return the book that ``to_json`` wrote.

        Raises:
            InputError: if the text is no book, or one of its recipes is wrong.
        """
        return cls._of(parsed(text, {BOOK_FORMAT: _StoredBook}, "the recipe book"))

    @classmethod
    def _of(cls, stored: _StoredBook) -> RecipeBook:
        return cls(tuple(Recipe._of(recipe) for recipe in stored.recipes))

    def __str__(self) -> str:
        return "\n".join([f"book of {len(self.recipes)} recipes", *(f"  {recipe}" for recipe in self.recipes)])


def load_recipe(path: Path | str, steps: int | None = None) -> Recipe:
    """Return the recipe in a file, of a book the one of ``steps`` network calls.

    Raises:
        InputError: if the file cannot be read or is no recipe, or has none of ``steps`` calls; or it is a book and
            ``steps`` is not given.
    """
    found = _stored(path)
    if isinstance(found, RecipeBook):
        return found.chosen(steps)
    if steps not in (None, found.plan.nfe):
        raise InputError(
            f"the recipe is of {found.plan.nfe} steps, {str(path)!r}: leave steps out, or give {found.plan.nfe}."
        )
    return found


def load_recipes(path: Path | str) -> tuple[Recipe, ...]:
    """Return all recipes in a file: the one, or those of a book in order of their calls.

    Raises:
        InputError: if the file cannot be read or is no recipe.
    """
    found = _stored(path)
    return found.recipes if isinstance(found, RecipeBook) else (found,)


def _stored(path: Path | str) -> Recipe | RecipeBook:
    formats: Mapping[str, Any] = {**FORMATS, BOOK_FORMAT: _StoredBook}
    stored = read_json(path, formats, "the recipe")
    return RecipeBook._of(stored) if isinstance(stored, _StoredBook) else Recipe._of(stored)

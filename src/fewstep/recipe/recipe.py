"""The recipe: a plan that was fitted to a model, with the report of the fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ConfigDict, Field, field_validator

from fewstep.checks import instance, real
from fewstep.errors import InputError
from fewstep.plan import FIRST_FORMAT, FORMAT, FirstStoredPlan, Plan, StoredPlan
from fewstep.recipe.report import Report, StoredReport
from fewstep.storage import Plain, Schema, Stored, check_plain, checked, json_text, parsed, versions

__all__ = ["FORMATS", "SCHEMA", "Recipe", "StoredRecipe"]

SCHEMA = 1
"""The version of a recipe's entries besides the plan."""
WITH_SETTINGS = 2
"""The version of those with settings of guidance and skips, which earlier readers would leave out."""


class _StoredModel(Schema):
    model_config = ConfigDict(extra="allow")

    network: str = ""
    fingerprint: str = ""
    prediction: str = ""
    guidance_scale: float | None = None


class _StoredCalibration(Schema):
    schema_version: Any = Field(alias="schema")
    model: _StoredModel
    report: StoredReport | None
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


class StoredRecipe(StoredPlan):
    """A recipe as JSON has it."""

    calibration: _StoredCalibration | None = None


class FirstStoredRecipe(FirstStoredPlan):
    calibration: _StoredCalibration | None = None


FORMATS: Mapping[str, type[StoredRecipe | FirstStoredRecipe]] = {
    FORMAT: StoredRecipe,
    FIRST_FORMAT: FirstStoredRecipe,
}


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

    Raises:
        InputError: if ``plan`` is no plan, or JSON has no place for what is beside it.
    """

    plan: Plan
    report: Report | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=lambda: versions("fewstep", "torch"))
    guidance: float | str | None = None
    skip: Mapping[str, Any] | None = None
    tuning: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse what ``to_json`` could not write."""
        instance(Plan, "plan", self.plan, "give an fs.Plan")
        if self.report is not None:
            instance(Report, "report", self.report, "give an fs.calibration.Report, or leave it out")
        if isinstance(self.guidance, str):
            check_plain("guidance", {"as": self.guidance})
        elif self.guidance is not None:
            object.__setattr__(self, "guidance", real("guidance", self.guidance))
        for name in ("model", "versions", "skip", "tuning"):
            value = getattr(self, name)
            if value is not None or name in ("model", "versions"):
                check_plain(name, value)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``to_json`` writes."""
        more = {"guidance": self.guidance, "skip": self.skip, "tuning": self.tuning}
        return {
            **self.plan.to_dict(),
            "calibration": {
                "schema": SCHEMA if self.guidance is None and self.skip is None else WITH_SETTINGS,
                "model": dict(self.model),
                "report": None if self.report is None else self.report.to_dict(),
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
        return cls.of(parsed(text, FORMATS, "the recipe"))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Return the recipe that ``to_dict`` gave.

        Raises:
            InputError: as ``from_json``.
        """
        return cls.of(checked(data, FORMATS, "the recipe"))

    @classmethod
    def of(cls, stored: StoredRecipe | FirstStoredRecipe) -> Recipe:
        """Return the recipe of what was read from a file."""
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

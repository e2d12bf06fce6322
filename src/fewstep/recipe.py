"""A plan that was fitted to a model, with the report of the fit; as JSON it is a recipe."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from fewstep.errors import InputError
from fewstep.plan import Plan

__all__ = ["SCHEMA", "CalibratedPlan", "Report", "RowFit", "load_recipe"]

SCHEMA = 1
"""The version of what a recipe says besides the plan."""


@dataclass(frozen=True)
class RowFit:
    """What became of a row: the features fitted (0: the solver's own row), the ridge, and the error to the reference.

    ``own`` and ``fitted`` are root mean squares of the next state's error with the solver's row and the fitted one,
    on noises that the fit had not seen.
    """

    width: int
    ridge: float
    own: float
    fitted: float


@dataclass(frozen=True)
class Report:
    """What a calibration did, measured on noises that no coefficient was fitted to.

    Attributes:
        before, after: RMSE of the final samples to the reference, of the uncalibrated plan and of the result.
        gain: before/after; 1 if the uncalibrated plan was kept.
        gain_low, gain_high: 95 % bootstrap interval of the gain over the held-out noises.
        kept: what the result is: "fitted", or "own" where the fit was not better.
        num, held_out: noises in all, and those held out.
        calls: network calls, one a sample, guidance within a call not counted.
        seconds: wall-clock time.
        rows: the fits row by row (of the row-by-row pass).
        tried: the starts of the grid search with their errors, best first; empty without a search.
        settings: the arguments.
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

    def __str__(self) -> str:
        return (
            f"RMSE to the reference {self.before:.4g} -> {self.after:.4g} on {self.held_out} held-out noises: "
            f"{self.gain:.2f} times lower (95 %: {self.gain_low:.2f} to {self.gain_high:.2f}); "
            f"{self.calls} network calls, {self.seconds:.0f} s"
        )


@dataclass(frozen=True, eq=False)
class CalibratedPlan(Plan):
    """A plan whose coefficients were fitted to a model; it runs like any other.

    Besides a plan's own fields it has the ``report`` of the fit, and in ``model`` what it was fitted to: the network's
    class and fingerprint, its prediction, the guidance scale.
    """

    report: Report | None = None
    model: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the recipe: the plan's JSON, which ``Plan.from_json`` reads too, with the model and the report."""
        data = json.loads(super().to_json())
        data["calibration"] = {
            "schema": SCHEMA,
            "model": dict(self.model),
            "report": None if self.report is None else asdict(self.report),
            "versions": _versions(),
        }
        return json.dumps(data, indent=1)

    @classmethod
    def from_json(cls, text: str) -> CalibratedPlan:
        """Return the calibrated plan that ``to_json`` wrote, bit for bit.

        Raises:
            InputError: if the text is no recipe, of another schema version, or its table is wrong.
        """
        plan = super().from_json(text)
        assert isinstance(plan, CalibratedPlan)
        data = json.loads(text).get("calibration")
        if not isinstance(data, Mapping):
            raise InputError(
                "this is a plan, but no recipe: it says nothing of a calibration; read it with Plan.from_json."
            )
        if data.get("schema") != SCHEMA:
            raise InputError(
                f"the recipe has schema version {data.get('schema')!r}, this version of fewstep reads {SCHEMA}: "
                "calibrate anew, or use the version that wrote it."
            )
        try:
            return replace(plan, model=dict(data["model"]), report=_report(data["report"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the recipe is damaged ({error!r}): calibrate anew.") from error


def load_recipe(path: Path | str) -> CalibratedPlan:
    """Return the calibrated plan in a file.

    Raises:
        InputError: if the file cannot be read or is no recipe.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the recipe {str(path)!r} cannot be read: {error}.") from error
    return CalibratedPlan.from_json(text)


def _report(data: Mapping[str, Any] | None) -> Report | None:
    if data is None:
        return None
    rows = tuple(RowFit(**row) for row in data["rows"])
    return Report(**{**data, "rows": rows, "tried": tuple((name, error) for name, error in data["tried"])})


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": torch.__version__}
    try:
        found["fewstep"] = version("fewstep")
    except PackageNotFoundError:  # Run from a checkout that is not installed.
        pass
    return found

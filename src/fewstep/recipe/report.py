"""The report of a calibration: errors before and after on held-out noises, what was tried, what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field

from fewstep.storage import Plain, Schema

__all__ = ["Report", "RowFit", "StoredReport"]

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
            of the result; with objective="distribution" the Fréchet distance of the features.
        gain: before/after; 1 if the uncalibrated plan was kept.
        gain_low, gain_high: 95 % bootstrap interval of the gain over the held-out noises.
        kept: the plan that is returned: "fitted", or "base", the best without a fit, where that was not significantly
            better.
        num, held_out: noises in all, and those held out; more than a quarter where the gain was in doubt.
        calls: network calls, one a sample, guidance within a call not counted.
        seconds: wall-clock time.
        rows: the fits row by row (of the row-by-row pass).
        tried: the starts of the grid search with their errors, or of a stochastic fit with their distances, best first;
            empty without either.
        settings: the arguments, and what was chosen where they left a choice.
        quantiles_before, quantiles_after: median and 95th percentile of the held-out noises' RMSE, of features if any;
            None for a solver that adds noise, whose samples are not the solution's.
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
            f"{self._compared} {self.before:.4g} -> {self.after:.4g} "
            f"on {self.held_out} held-out noises: "
            f"{self.gain:.2f} times lower (95 %: {self.gain_low:.2f} to {self.gain_high:.2f}); "
            f"{self._spread()}"
            f"{self.calls} network calls, {self.seconds:.0f} s"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        gains = {name: value if math.isfinite(value := getattr(self, name)) else None for name in GAINS}
        return {**asdict(self), **gains}

    @property
    def _compared(self) -> str:
        if self.settings.get("objective") == "distribution":
            return f"Fréchet distance to the {'target' if self.settings.get('target') else 'solution'}"
        return f"RMSE {'of features ' if self.settings.get('objective') == 'features' else ''}to the reference"

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


class StoredReport(Schema):
    """A report as JSON has it."""

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

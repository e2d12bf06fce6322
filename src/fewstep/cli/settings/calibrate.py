"""The settings of ``fewstep calibrate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewstep.cli.settings.options import (
    SAMPLER,
    BatchSize,
    ConditionSettings,
    ModelSettings,
    SolverSettings,
    check_json,
    counts_of,
)
from fewstep.errors import InputError

__all__ = ["CalibrateSettings"]


@dataclass(frozen=True, kw_only=True)
class CalibrateSettings(ConditionSettings, SolverSettings, ModelSettings):
    """Fit a solver's coefficients, and with --search its times, to a model, as a recipe to sample with.

    The solver adds no noise, or is sa with few_step=True for --objective distribution, which fits τ of each step;
    --search starts at the grid. The recipe is for the guidance scale given here. With several
    numbers of steps the file is a book of recipes, of which --recipe FILE --steps N takes one.

    Example: fewstep calibrate --model fashion-mnist --steps 6 --search --out recipe.json
    """

    out: Annotated[Path, typer.Option(help="The recipe, or the book of recipes, a .json file.")]
    steps: Annotated[
        str,
        typer.Option(help="Network calls: one number, or several, as 4-12 or 4,6,8.", rich_help_panel=SAMPLER),
    ] = "8"
    grid: Annotated[
        str,
        typer.Option(help="A time grid, or a .json file; where --search starts.", rich_help_panel=SAMPLER),
    ] = "uniform_logsnr"
    num: Annotated[int, typer.Option(help="Noises to calibrate on, 8 or more; a quarter is held out.")] = 64
    search: Annotated[bool, typer.Option("--search/--no-search", help="Search the times too.")] = False
    history: Annotated[int, typer.Option(help="Predictions whose coefficients are fitted in a row.")] = 4
    analytic: Annotated[
        str,
        typer.Option(
            help="First predictions by formulas, without a call: a number; last: none, but a formula after the last "
            "row, if it helps; auto: both."
        ),
    ] = "auto"
    loss: Annotated[str, typer.Option(help="square, root (few noises with large errors count less), or auto.")] = "auto"
    reference_steps: Annotated[int, typer.Option(help="Calls of the reference solution of each noise.")] = 100
    objective: Annotated[
        str,
        typer.Option(
            help="What is fitted: final samples, their features, the features' distribution (mean and covariance), or "
            "local, the row-by-row fit alone."
        ),
    ] = "final"
    features: Annotated[
        str | None,
        typer.Option(
            help="The features of --objective features and distribution, as in fewstep evaluate.",
            show_default="the model's, if known",
        ),
    ] = None
    target: Annotated[
        str | None,
        typer.Option(
            help="Whose distribution --objective distribution fits: images or statistics, as fewstep evaluate takes "
            "for --reference.",
            show_default="the model's solutions",
        ),
    ] = None
    budget: Annotated[int | None, typer.Option(help="Network calls after which --search starts no new trial.")] = None
    batch_size: BatchSize = 32

    def __post_init__(self) -> None:
        check_json(self.out)
        _ = self.counts
        if self.budget is not None and not self.search:
            raise InputError("--budget is when --search begins nothing new: add --search, or leave --budget out.")
        if self.features is not None and not self.compares_features:
            raise InputError(
                f"--features {self.features} are those of --objective features and distribution: write one, or leave "
                "them out."
            )
        if self.target is not None and self.objective != "distribution":
            raise InputError(f"--target {self.target} is that of --objective distribution: write it, or leave it out.")

    @property
    def counts(self) -> list[int]:
        """The numbers of network calls, each once."""
        return counts_of(self.steps)

    @property
    def compares_features(self) -> bool:
        """Whether features of samples are fitted."""
        return self.objective in ("features", "distribution")

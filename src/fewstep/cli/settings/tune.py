"""The settings of ``fewstep tune``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewstep.cli.settings.options import (
    MODEL,
    BatchSize,
    ConditionSettings,
    ModelSettings,
    at_least,
    check_json,
)
from fewstep.errors import InputError

__all__ = ["TuneSettings"]

OBJECTIVE = "What is good"


@dataclass(frozen=True, kw_only=True)
class TuneSettings(ConditionSettings, ModelSettings):
    """Find the best recipe for a model: solver, grid, noise and rows, and with --data or --score guidance and skips.

    Candidates are ranked without a network call, measured by successive halving, and the best is calibrated. The
    winner is compared with the pipeline's own sampler on unseen seeds and prompts. Beside the recipe a report,
    OUT.html, and a folder, OUT.tune, are written; the same command goes on with a search that was stopped.

    Example: fewstep tune my-pipeline --calls 8 --budget 10min --out recipe.json
    """

    model: Annotated[
        str,
        typer.Argument(
            help="An embedded model, a diffusers pipeline folder, module:function, or an EDM .pkl.",
            metavar="MODEL",
            rich_help_panel=MODEL,
        ),
    ] = "fashion-mnist"
    out: Annotated[Path, typer.Option(help="The recipe, a .json file.")]
    calls: Annotated[int, typer.Option(help="Network calls of a sample.")] = 8
    budget: Annotated[str, typer.Option(help="Network calls, as 2000, or a time, as 10min.")] = "6000"
    storage: Annotated[
        str | None,
        typer.Option(
            help="A database that several processes or machines share, as postgresql://….",
            show_default="SQLite in OUT.tune",
        ),
    ] = None
    data: Annotated[
        Path | None,
        typer.Option(help="Real images, .npz or a folder: minimise the distance to them.", rich_help_panel=OBJECTIVE),
    ] = None
    features: Annotated[
        str | None,
        typer.Option(
            help="Compare samples in these features, as in fewstep evaluate: with --data, or with solutions.",
            rich_help_panel=OBJECTIVE,
        ),
    ] = None
    score: Annotated[
        str | None,
        typer.Option(
            help="module:function of decoded samples (and their prompts), higher is better; it runs that code.",
            rich_help_panel=OBJECTIVE,
        ),
    ] = None
    reference_steps: Annotated[
        int | None,
        typer.Option(
            help="Calls of the solution of a noise.", show_default="as the budget allows", rich_help_panel=OBJECTIVE
        ),
    ] = None
    pictures: Annotated[int, typer.Option(help="Samples shown in the report; they are drawn beyond the budget.")] = 4
    batch_size: BatchSize = 8

    def __post_init__(self) -> None:
        check_json(self.out)
        at_least(0, pictures=self.pictures)
        at_least(1, batch_size=self.batch_size)
        at_least(2, calls=self.calls)
        if self.data is not None and self.score is not None:
            raise InputError("--data and --score are both given: leave one of them out.")
        if self.features is not None and self.score is not None:
            raise InputError("--features and --score are both given: leave one of them out.")

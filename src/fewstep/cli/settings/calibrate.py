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
    SamplerSettings,
    check_json,
)

__all__ = ["CalibrateSettings"]


@dataclass(frozen=True, kw_only=True)
class CalibrateSettings(ConditionSettings, SamplerSettings, ModelSettings):
    """Fit a solver's coefficients, and with --search its times, to a model, as a recipe to sample with.

    The solver adds no noise; --search starts at the grid. The recipe is for the guidance scale given here.

    Example: fewstep calibrate --model fashion-mnist --steps 6 --search --out recipe.json
    """

    out: Annotated[Path, typer.Option(help="The recipe, a .json file.")]
    grid: Annotated[
        str,
        typer.Option(help="A time grid, or a .json file; where --search starts.", rich_help_panel=SAMPLER),
    ] = "uniform_logsnr"
    num: Annotated[int, typer.Option(help="Noises to calibrate on, 8 or more; a quarter is held out.")] = 64
    search: Annotated[bool, typer.Option("--search/--no-search", help="Search the times too.")] = False
    history: Annotated[int, typer.Option(help="Predictions whose coefficients are fitted in a row.")] = 4
    analytic: Annotated[str, typer.Option(help="First predictions by formulas, without a call: a number, or auto.")] = (
        "auto"
    )
    loss: Annotated[str, typer.Option(help="square, root (few noises with large errors count less), or auto.")] = "auto"
    reference_steps: Annotated[int, typer.Option(help="Calls of the reference solution of each noise.")] = 100
    objective: Annotated[str, typer.Option(help="final, or local: the row-by-row fit alone.")] = "final"
    budget: Annotated[int | None, typer.Option(help="Network calls after which --search starts no new trial.")] = None
    batch_size: BatchSize = 32

    def __post_init__(self) -> None:
        check_json(self.out)

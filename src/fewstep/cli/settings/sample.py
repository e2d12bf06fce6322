"""The settings of ``fewstep sample``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewstep.cli.settings.options import BatchSize, ConditionSettings, ModelSettings, RecipeSamplerSettings, at_least

__all__ = ["SampleSettings"]


@dataclass(frozen=True, kw_only=True)
class SampleSettings(ConditionSettings, RecipeSamplerSettings, ModelSettings):
    """Draw samples of a model into a picture.

    Example: fewstep sample --model fashion-mnist --solver unipc:order=2 --grid karras --steps 8 --class 7 --guidance 2
    """

    num: Annotated[int, typer.Option(help="How many samples, 1 or more.")] = 16
    seed: Annotated[int, typer.Option(help="The first sample's seed; sample i has seed + i.")] = 0
    batch_size: BatchSize = 64
    out: Annotated[
        Path,
        typer.Option(help="A .png (one picture), a .gif of videos, a .wav, a .npz, or a folder for files by seed."),
    ] = Path("samples.png")
    list_: Annotated[bool, typer.Option("--list", help="Show solvers, grids and models, and stop.")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, num=self.num, batch_size=self.batch_size)

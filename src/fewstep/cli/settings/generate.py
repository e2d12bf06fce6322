"""The settings of ``fewstep generate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewstep.cli.settings.options import BatchSize, ConditionSettings, ModelSettings, RecipeSamplerSettings, at_least
from fewstep.errors import InputError

__all__ = ["GenerateSettings"]


@dataclass(frozen=True, kw_only=True)
class GenerateSettings(ConditionSettings, RecipeSamplerSettings, ModelSettings):
    """Draw many samples into a folder; the same command resumes a run that was stopped.

    Sample i depends on seed i alone. Several GPUs or processes: accelerate launch --multi_gpu --num_processes 2 -m
    fewstep.cli generate …

    Example: fewstep generate --solver sa:few_step=True --steps 6 --num 50000 --out samples
    """

    out: Annotated[Path, typer.Option(help="The folder of the samples; the same command resumes in it.")]
    num: Annotated[int | None, typer.Option(help="How many samples, with seeds from 0.")] = None
    seeds: Annotated[str | None, typer.Option(help="The seeds: 0-49999, or 3,5,8-10.")] = None
    batch_size: BatchSize = 256
    shard_size: Annotated[
        int,
        typer.Option(help="Samples in a file, and at most in a network call; what a killed run may have to redo."),
    ] = 1024
    graph: Annotated[
        bool, typer.Option(help="Run the steps of a batch as one CUDA graph: quicker for small networks on a GPU.")
    ] = False
    format_: Annotated[
        str, typer.Option("--format", help="npz, or a file for each seed: png, of videos gif, of audio wav.")
    ] = "npz"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, batch_size=self.batch_size, shard_size=self.shard_size)
        if self.format_ not in ("npz", "png", "gif", "wav"):
            raise InputError(f"--format is {self.format_!r}: write npz or png, for videos gif, for audio wav.")

"""The settings of ``fewstep reproduce``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewstep.cli.settings.options import BatchSize, Device, at_least
from fewstep.errors import InputError

__all__ = ["ReproduceSettings"]

OF_THE_TABLE = "the table's"


@dataclass(frozen=True, kw_only=True)
class ReproduceSettings:
    """Sample a table of a paper with the published weights, and print our figures beside the paper's.

    Without --weights it says what the table needs, and where that is downloaded from. A run takes --weights,
    --inception and --out; the same command resumes one that was stopped. Several GPUs or processes: accelerate launch
    --multi_gpu --num_processes 2 -m fewstep.cli reproduce …

    Example: fewstep reproduce sa-solver-cifar10
    """

    table: Annotated[
        str | None, typer.Argument(help="A table by name (see --list), or a .json file.", show_default=False)
    ] = None
    list_: Annotated[bool, typer.Option("--list", help="List the tables that come with fewstep.")] = False
    weights: Annotated[Path | None, typer.Option(help="The folder of the downloaded files.")] = None
    inception: Annotated[
        str | None,
        typer.Option(help="The weights of the FID's Inception, or other features as torchscript:FILE."),
    ] = None
    reference: Annotated[
        Path | None,
        typer.Option(help="Statistics or images to compare with.", show_default="the table's, in --weights"),
    ] = None
    out: Annotated[Path | None, typer.Option(help="The folder of samples and results; the run resumes in it.")] = None
    num: Annotated[int | None, typer.Option(help="Samples of a row.", show_default=OF_THE_TABLE)] = None
    rows: Annotated[str | None, typer.Option(help="Some rows by name, joined by commas.", show_default="all")] = None
    batch_size: BatchSize = 256
    shard_size: Annotated[int, typer.Option(help="Samples in a file, and at most in a network call.")] = 1024
    device: Device = "cpu"
    trust_pickle: Annotated[bool, typer.Option(help="Load a pickle, which runs the code in it.")] = False

    def __post_init__(self) -> None:
        at_least(1, batch_size=self.batch_size, shard_size=self.shard_size)
        at_least(2, num=self.num)
        if self.table is None and not self.list_:
            raise InputError("which table? Name one, or list them with fewstep reproduce --list.")

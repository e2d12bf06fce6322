"""The settings of ``fewstep doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["DoctorSettings"]

DEFAULT = "the pipeline's default"


@dataclass(frozen=True, kw_only=True)
class DoctorSettings:
    """Print the schedule that a diffusers pipeline really runs, step by step, and what is wrong with it.

    Example: fewstep doctor my-pipeline --steps 8
    """

    model: Annotated[Path, typer.Argument(help="A folder that save_pretrained wrote.", metavar="MODEL")]
    steps: Annotated[int | None, typer.Option(help="Steps of the call.", show_default=DEFAULT, min=1)] = None
    height: Annotated[int | None, typer.Option(help="Height of the sample.", show_default=DEFAULT)] = None
    width: Annotated[int | None, typer.Option(help="Width of the sample.", show_default=DEFAULT)] = None
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.", show_default=DEFAULT)] = None
    call: Annotated[
        list[str],
        typer.Option(
            help="What else the pipeline is called with, as num_frames=33; once for each.", show_default=False
        ),
    ] = ()  # type: ignore[assignment]
    measure: Annotated[
        bool, typer.Option("--measure", help="Call the network in two steps, and look what it predicts.")
    ] = False
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
    plot: Annotated[Path | None, typer.Option(help="Draw σ/α and λ over the steps into this .png or .svg file.")] = None

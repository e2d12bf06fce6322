"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "PROFILE",
    "SOLVER",
    "BatchSize",
    "ClassOfSeed",
    "Device",
    "Dtype",
    "Grid",
    "Guidance",
    "ModelName",
    "Prompt",
    "Prompts",
    "Recipe",
    "Skip",
    "Solver",
    "Steps",
    "TrustPickle",
]

SOLVER = "unipc:order=2"
"""The solver where none is asked for: below 10 steps, order 3 overshoots on the optimised grid."""
PROFILE = "A skip profile of fewstep skip search, or of fs.skip.Profile.save."

ModelName = Annotated[
    str,
    typer.Option(
        help="An embedded model, a diffusers pipeline folder, module:function, or an EDM .pkl (with --trust-pickle).",
    ),
]
Solver = Annotated[str, typer.Option(help="A solver, with settings if wanted: unipc, sa:tau=0.5.")]
Grid = Annotated[str, typer.Option(help="A time grid, with settings if wanted, or a .json file.")]
Steps = Annotated[int, typer.Option(help="Intervals of the grid, 1 or more.")]
Recipe = Annotated[
    Path | None, typer.Option(help="A recipe of fewstep calibrate, in place of --solver, --grid and --steps.")
]
Skip = Annotated[Path | None, typer.Option(help=PROFILE)]
ClassOfSeed = Annotated[
    str, typer.Option("--class", help="A class number, 'each' for seed modulo classes, 'none' for no class.")
]
Prompt = Annotated[str | None, typer.Option(help="What to show, for a model that is led by prompts.")]
Prompts = Annotated[Path | None, typer.Option(help="A file of prompts, one a line; samples take them in turn.")]
Guidance = Annotated[float, typer.Option(help="Classifier-free guidance scale; 1 is none.")]
BatchSize = Annotated[int, typer.Option(help="Samples in a network call.")]
Device = Annotated[str, typer.Option(help="Where networks run: cpu, cuda.")]
Dtype = Annotated[
    str, typer.Option(help="Type of the network's weights: float32, bfloat16, float16. The state stays float32.")
]
TrustPickle = Annotated[bool, typer.Option(help="Load a pickle, which runs the code in it.")]

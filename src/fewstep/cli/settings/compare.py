"""The settings of ``fewstep compare``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewstep.cli.settings.options import SKIP, BatchSize, ConditionSettings, ModelSettings, at_least, counts_of, names
from fewstep.errors import unknown_name

__all__ = ["CompareSettings"]

METRICS = ("error", "fd", "fd_solution")


@dataclass(frozen=True, kw_only=True)
class CompareSettings(ConditionSettings, ModelSettings):
    """Measure every solver on every grid at every number of steps, into report.html, table.csv and table.json.

    error is the RMSE to the solution of the same noise in many steps, with a 95 % bootstrap interval; a solver that
    adds noise has none. fd is the Fréchet distance to the reference, fd_solution that to the model's samples of other
    seeds in many steps: what the solver is to blame for. Several processes share the cells: accelerate launch
    --multi_gpu --num_processes 2 -m fewstep.cli compare …

    Example: fewstep compare --solvers unipc,dpmpp,ddim --grids karras --steps 5,8,10 --num 1000 --out table
    """

    out: Annotated[Path, typer.Option(help="A folder for the results; the same command resumes in it.")]
    solvers: Annotated[
        str | None,
        typer.Option(help="Solvers, as unipc:order=2,ddim.", show_default="the recommended, dpmpp, ddim"),
    ] = None
    grids: Annotated[
        str | None,
        typer.Option(help="Grids, as optimized,karras.", show_default="the recommended, karras, uniform_logsnr"),
    ] = None
    steps: Annotated[str, typer.Option(help="Numbers of steps, as 5,8,10 or 4-8.")] = "5,8,10"
    recipes: Annotated[str, typer.Option(help="Recipes of fewstep calibrate to compare with: a.json,b.json.")] = ""
    peers: Annotated[
        str,
        typer.Option(
            help="Diffusers' schedulers to compare with: unipc,dpmpp2,dpmpp3,deis,sa,unipc_karras,dpmpp2_karras."
        ),
    ] = ""
    skip: Annotated[
        str | None, typer.Option(help=f"{SKIP} In every cell; the solution is that of the model without.")
    ] = None
    metrics: Annotated[
        str | None,
        typer.Option(help="Some of error,fd,fd_solution.", show_default="error, and fd where features are known"),
    ] = None
    num: Annotated[int, typer.Option(help="Samples a cell, with seeds from 0.")] = 256
    features: Annotated[
        str | None,
        typer.Option(help="The features of fd, as in fewstep evaluate, or none.", show_default="the model's, if known"),
    ] = None
    reference: Annotated[str, typer.Option(help="The images of fd, as in fewstep evaluate.")] = "fashion-mnist"
    exact_steps: Annotated[
        int, typer.Option(help="Steps of the solution of error and fd_solution (UniPC, order 3).")
    ] = 100
    batch_size: BatchSize = 64

    def __post_init__(self) -> None:
        if self.metrics is not None:
            for name in names(self.metrics) or [self.metrics]:
                if name not in METRICS:
                    raise unknown_name("metric", name, METRICS)
        at_least(1, num=self.num, batch_size=self.batch_size, exact_steps=self.exact_steps)
        _ = self.counts

    @property
    def counts(self) -> list[int]:
        """The numbers of steps, each once."""
        return counts_of(self.steps)

"""The settings of ``fewstep grid``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewstep.cli.settings.options import check_writable
from fewstep.errors import InputError

__all__ = ["GridSettings", "check_suffix"]


@dataclass(frozen=True, kw_only=True)
class GridSettings:
    """Print a time grid: t, σ, λ and the timesteps of diffusers.

    Example: fewstep grid --process vp-discrete --solver unipc:order=2 --steps 8 --out grid.json --plot grid.png
    """

    process: Annotated[
        str | None,
        typer.Option(
            help="vp-linear, vp-cosine, vp-discrete, edm or flow:shift=3.", show_default="vp-linear, or the model's"
        ),
    ] = None
    solver: Annotated[
        str | None,
        typer.Option(help="The solver that the grid is for, as unipc or sa:tau=0.5.", show_default="recommended"),
    ] = None
    steps: Annotated[int | None, typer.Option(help="Intervals of the grid, 1 or more.", show_default="8")] = None
    grid: Annotated[
        str | None,
        typer.Option(
            help="The grid to print: optimized, karras:end=0.1, optimized:error_power=1 (of least error bound), … or a "
            ".json file.",
            show_default="recommended",
        ),
    ] = None
    spectrum: Annotated[
        str | None,
        typer.Option(
            help="Spectrum of the data: pixels, latents, video, a law (power:2), a .json file, or a model to measure.",
            show_default="pixels",
        ),
    ] = None
    out: Annotated[Path | None, typer.Option(help="Write the grid to this .json file.")] = None
    plot: Annotated[
        Path | None,
        typer.Option(help="Plot it, and its error by frequency, beside other grids into this .png or .svg file."),
    ] = None
    compare: Annotated[bool, typer.Option("--compare", help="Print the likely error of all solvers on all grids.")] = (
        False
    )

    def __post_init__(self) -> None:
        check_suffix("--out", self.out, (".json",))
        check_suffix("--plot", self.plot, (".png", ".svg"))


def check_suffix(option: str, path: Path | None, suffixes: tuple[str, ...]) -> None:
    """Refuse a file's name of another kind, or in a folder that is not there.

    Raises:
        InputError: with the kinds that there are.
    """
    if path is not None and path.suffix not in suffixes:
        raise InputError(f"{option} is {str(path)!r}: end the name in {' or '.join(suffixes)}.")
    if path is not None:
        check_writable(path, option)

"""The settings of ``fewstep skip diagnose`` and ``fewstep skip search``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewstep.cli.settings.options import (
    CONDITION,
    PROFILE,
    BatchSize,
    Guidance,
    ModelSettings,
    Prompts,
    SamplerSettings,
    at_least,
    check_json,
)
from fewstep.errors import InputError, unknown_name

__all__ = ["DiagnoseSettings", "SearchSettings"]

METRICS = ("fd", "feature-loss")
Window = tuple[float | None, float | None] | None
"""(low, high) in σ/α, either None for open; None is everywhere."""

DATA = "Real images: an .npz with 'images' (and 'labels' for their classes), or a folder of .npz or pictures."
Features = Annotated[
    str | None,
    typer.Option(
        help="fashion-mnist, inception:FILE, dinov2:FOLDER, torchscript:FILE, or none; by default those for the model."
    ),
]


@dataclass(frozen=True, kw_only=True)
class DiagnoseSettings(ModelSettings):
    """Measure the effect of scaled skips on a model, on real images.

    The ratio of each skip's norm to the hidden features', the denoising loss in pixels, in their wavelet bands and in
    features, how near to a Gaussian images come along the ODE, and how far the network's output changes with its input,
    all but the first with and without tuning.

    Example: fewstep skip diagnose --data test_images.npz --bottom 0.8 --num 256 --out diagnosis
    """

    data: Annotated[Path, typer.Option(help=DATA)]
    out: Annotated[Path, typer.Option(help="A new folder for a figure of each diagnostic and diagnosis.json.")]
    bottom: Annotated[float, typer.Option(help="ρ of the deepest skip.")] = 0.8
    top: Annotated[float, typer.Option(help="ρ of the outermost skip.")] = 1.0
    skip: Annotated[str | None, typer.Option(help=f"In place of both: {PROFILE}")] = None
    features: Features = None
    num: Annotated[int, typer.Option(help="Real images, drawn from the data at random, 2 or more.")] = 128
    levels: Annotated[int, typer.Option(help="Noise levels, 2 or more.")] = 12
    inversion_steps: Annotated[int, typer.Option(help="Network calls from an image to noise.")] = 40
    diagnostics: Annotated[str, typer.Option(help="Some of ratios,losses,inversion,complexity.")] = (
        "ratios,losses,inversion"
    )
    seed: Annotated[int, typer.Option(help="Decides which images are drawn, and the first one's noise.")] = 0
    class_: Annotated[
        str,
        typer.Option("--class", help="data (the labels of --data), none, or a class.", rich_help_panel=CONDITION),
    ] = "data"
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="A file of prompts, one a line; images take them in turn. Else an empty one.",
            rich_help_panel=CONDITION,
        ),
    ] = None
    batch_size: BatchSize = 64

    def __post_init__(self) -> None:
        if self.out.suffix:
            raise InputError(f"--out is {str(self.out)!r}: write the name of a folder, without a dot.")
        at_least(2, num=self.num)
        at_least(1, batch_size=self.batch_size, inversion_steps=self.inversion_steps)
        at_least(0, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class SearchSettings(SamplerSettings, ModelSettings):
    """Search for the ρ that suits a model, a solver and a number of steps, as a profile for --skip.

    Example: fewstep skip search --steps 8 --metric fd --bottom 0.5:1.0 --num 500 --out profile.json
    """

    out: Annotated[Path, typer.Option(help="The profile, a .json file; the plot is a .png of the same name.")]
    metric: Annotated[str, typer.Option(help="fd of samples, or feature-loss of real images (with --data).")] = "fd"
    bottom: Annotated[str, typer.Option(help="ρ of the deepest skip: a range, 0.5:1.0, or a number.")] = "0.5:1.0"
    top: Annotated[str, typer.Option(help="ρ of the outermost skip: a number, or a range to search too.")] = "1.0"
    windows: Annotated[
        str,
        typer.Option(help="σ/α at which skips are scaled, low:high, each tried: all,0.05:1,1: (open above)."),
    ] = "all"
    tau: Annotated[
        str | None, typer.Option(help="Noise strengths of SA-Solver to search ρ with, as 0,0.4,1@0.05:1.")
    ] = None
    method: Annotated[str, typer.Option(help="golden (golden-section search), or grid (evenly spaced).")] = "golden"
    points: Annotated[int, typer.Option(help="Evaluations of each range, 2 or more.")] = 6
    num: Annotated[int, typer.Option(help="Samples, or real images, of each evaluation.")] = 500
    seed: Annotated[int, typer.Option(help="The first sample's seed; all evaluations have the same.")] = 0
    features: Features = None
    reference: Annotated[str, typer.Option(help="What fd compares with: an .npz, a folder.")] = "fashion-mnist"
    data: Annotated[Path | None, typer.Option(help=DATA)] = None
    class_: Annotated[
        str | None,
        typer.Option(
            "--class",
            help="A class, none, each (fd) or data (feature-loss), the defaults.",
            rich_help_panel=CONDITION,
        ),
    ] = None
    prompts: Prompts = None
    guidance: Guidance = None
    batch_size: BatchSize = 64

    def __post_init__(self) -> None:
        check_json(self.out)
        if self.out.with_suffix(".png").exists() and not self.out.exists():
            raise InputError(
                f"--out is {str(self.out)!r}, and its plot would overwrite {self.out.with_suffix('.png').name}: choose "
                "another name."
            )
        if self.metric not in METRICS:
            raise unknown_name("metric", self.metric, METRICS)
        at_least(2, num=self.num)
        at_least(1, batch_size=self.batch_size)
        at_least(0, seed=self.seed)
        if (self.data is None) != (self.metric == "fd"):
            raise InputError("feature-loss needs real images, --data; fd compares samples with --reference instead.")
        self.ranges, self.noise_windows  # noqa: B018  # Refuses what is no range.
        if self.tau is not None and self.metric != "fd":
            raise InputError(f"--tau is {self.tau!r}: it changes samples, not the loss; search it with --metric fd.")

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The ranges of ρ, "bottom" and "top"."""
        return {"bottom": _range("--bottom", self.bottom), "top": _range("--top", self.top)}

    @property
    def noise_windows(self) -> tuple[Window, ...]:
        """``--windows``, None for "all"."""
        return tuple(None if word.strip() == "all" else _window(word) for word in self.windows.split(","))

    @property
    def taus(self) -> tuple[str, ...]:
        """``--tau`` in its parts, each once; empty if the solver's own is kept."""
        return tuple(dict.fromkeys((self.tau or "").split(","))) if self.tau else ()

    @property
    def classes(self) -> str:
        """``--class``; without it the classes of the data, else each in turn."""
        return self.class_ or ("each" if self.data is None else "data")


def _window(word: str) -> Window:
    low, colon, high = (part.strip() for part in word.partition(":"))
    try:
        ends = float(low or 0.0), float(high or math.inf)
    except ValueError:
        ends = 0.0, 0.0
    if not colon or not 0.0 <= ends[0] < ends[1]:
        raise InputError(f"--windows has {word!r}: write low:high in σ/α, as 0.05:1, :1 or 1:, or all.")
    return ends[0] if low else None, ends[1] if high else None


def _range(option: str, text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        return float(low), float(high or low)
    except ValueError as error:
        raise InputError(f"{option} is {text!r}: write a range, as 0.5:1.0, or a number.") from error

"""The options that several commands share, in groups."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewstep.errors import InputError

__all__ = [
    "BatchSize",
    "ConditionSettings",
    "Device",
    "Guidance",
    "ModelSettings",
    "Prompts",
    "RecipeSamplerSettings",
    "SamplerSettings",
    "SolverSettings",
    "at_least",
    "check_json",
    "check_words",
    "counts_of",
    "names",
]

MODEL, SAMPLER, CONDITION = "Model", "Sampler", "What to sample"
"""The panels of the help text."""
GUIDANCE = "the pipeline's default, or 1"
PROFILE = "Skip-Tuning: ρ of the deepest skip, as 0.8, bottom=0.7,top=0.95, or a profile of fewstep skip search."
SKIP = f"{PROFILE[:-1]}; or auto, by the number of calls."
RECOMMENDED = "recommended for the model"

BatchSize = Annotated[int, typer.Option(help="Samples in a network call.")]
Device = Annotated[str, typer.Option(help="Where networks run: cpu, cuda.", rich_help_panel=MODEL)]
Guidance = Annotated[
    str | None,
    typer.Option(
        help="Classifier-free guidance scale, 1 is none; with settings if wanted: 3:interval=0.2:2,rule=apg.",
        show_default=GUIDANCE,
        rich_help_panel=CONDITION,
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(help="A file of prompts, one a line; samples take them in turn.", rich_help_panel=CONDITION),
]


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The model, and where it runs."""

    model: Annotated[
        str,
        typer.Option(
            help="An embedded model, a diffusers pipeline folder, module:function, or an EDM .pkl (with "
            "--trust-pickle).",
            rich_help_panel=MODEL,
        ),
    ] = "fashion-mnist"
    device: Device = "cpu"
    dtype: Annotated[
        str,
        typer.Option(
            help="Type of the network's weights: float32, bfloat16, float16. The state stays float32.",
            rich_help_panel=MODEL,
        ),
    ] = "float32"
    call: Annotated[
        list[str],
        typer.Option(
            help="What a pipeline is called with, as height=512, num_frames=33, negative_prompt=blurry; once for each.",
            show_default=False,
            rich_help_panel=CONDITION,
        ),
    ] = ()  # type: ignore[assignment]
    trust_pickle: Annotated[
        bool, typer.Option(help="Load a pickle, which runs the code in it.", rich_help_panel=MODEL)
    ] = False


@dataclass(frozen=True, kw_only=True)
class SolverSettings:
    """A solver and a grid; None stands for what is recommended for the model."""

    solver: Annotated[
        str | None,
        typer.Option(
            help="A solver, with settings if wanted: unipc, sa:tau=0.5.",
            show_default=RECOMMENDED,
            rich_help_panel=SAMPLER,
        ),
    ] = None
    grid: Annotated[
        str | None,
        typer.Option(
            help="A time grid, with settings if wanted, or a .json file.",
            show_default=RECOMMENDED,
            rich_help_panel=SAMPLER,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class SamplerSettings(SolverSettings):
    """A solver, a grid and a number of steps; None stands for what is recommended for the model."""

    steps: Annotated[
        int | None, typer.Option(help="Intervals of the grid, 1 or more.", show_default="8", rich_help_panel=SAMPLER)
    ] = None


@dataclass(frozen=True, kw_only=True)
class RecipeSamplerSettings(SamplerSettings):
    """A sampler, or a recipe that holds one; skip connections scaled or not."""

    recipe: Annotated[
        Path | None,
        typer.Option(
            help="A recipe of calibrate or tune in place of --solver and --grid; of a book, that of --steps calls.",
            rich_help_panel=SAMPLER,
        ),
    ] = None
    skip: Annotated[str | None, typer.Option(help=SKIP, rich_help_panel=SAMPLER)] = None

    def __post_init__(self) -> None:
        given = [name for name in ("solver", "grid") if getattr(self, name) is not None]
        if self.recipe is not None and given:
            raise InputError(
                f"--recipe {self.recipe} holds its solver and grid: leave --{given[0]} out, or calibrate for other "
                "settings."
            )


@dataclass(frozen=True, kw_only=True)
class ConditionSettings:
    """Classes, prompts and guidance."""

    class_: Annotated[
        str,
        typer.Option(
            "--class",
            help="A class number, 'each' for seed modulo classes, 'none' for no class.",
            rich_help_panel=CONDITION,
        ),
    ] = "each"
    prompt: Annotated[
        str | None, typer.Option(help="What to show, for a model that takes prompts.", rich_help_panel=CONDITION)
    ] = None
    prompts: Prompts = None
    guidance: Guidance = None


MOST = 100_000_000
"""The largest number of anything that is asked for."""


def at_least(low: int, **given: int | None) -> None:
    """Refuse numbers below ``low``, or so large that they are a mistake; None is none given.

    Raises:
        InputError: with the option's name and value.
    """
    for name, value in given.items():
        if value is not None and value < low:
            raise InputError(f"--{name.replace('_', '-')} is {value}: it must be at least {low}.")
        if value is not None and name != "seed" and value > MOST:
            raise InputError(f"--{name.replace('_', '-')} is {value}: it must be at most {MOST}.")


CLASSES = ("each", "none", "data")
"""The words that ``--class`` may be, of some command."""
RANGE = re.compile(r"(?:^|,)\s*interval\s*=\s*([^:,()\[\]]+):([^:,()\[\]]+)(?:,|$)")


def check_words(settings: object) -> None:
    """Refuse what no model makes right, in the options that commands share: before torch is imported, which takes long.

    Raises:
        InputError: with the option, its value and what to write.
    """
    given = vars(settings)
    for name, least in (("steps", 1), ("seed", 0), ("num", 1), ("batch_size", 1)):
        if isinstance(given.get(name), int):
            at_least(least, **{name: given[name]})
    class_, guidance = given.get("class_"), given.get("guidance")
    if isinstance(class_, str) and class_ not in CLASSES and re.fullmatch("-?[0-9]{1,30}", class_) is None:
        raise InputError(f"--class is {class_!r}: give the number of a class, 'each' or 'none'.")
    if guidance is not None:
        _check_guidance(str(guidance))
    prompted = next((name for name in ("prompt", "prompts") if given.get(name) is not None), None)
    if prompted is not None and given.get("model") == ModelSettings.model:
        raise InputError(f"--{prompted} is given, and the model {ModelSettings.model} takes no prompts: leave it out.")


def _check_guidance(text: str) -> None:
    scale, _, rest = text.partition(":")
    if not math.isfinite(_number(scale)):
        raise InputError(
            f"--guidance is {text!r}: write a number, such as 3, with settings if wanted, as 3:interval=0.2:2."
        )
    found = RANGE.search(rest)
    if found is not None and not 0.0 <= _number(found[1]) < _number(found[2]):
        raise InputError(
            f"--guidance is {text!r}: an interval goes from one noise level σ/α to a higher one, as interval=0.2:2."
        )


def _number(text: str) -> float:
    """Return the number of a text, NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def check_writable(path: Path, option: str) -> None:
    """Try whether a file can be written, before any work.

    Raises:
        InputError: if it cannot.
    """
    from fewstep import storage  # Its packages are not for help texts.

    storage.check_writable(path, option)


def check_json(out: Path) -> None:
    """Refuse a file that is no ``.json`` in a folder that exists.

    Raises:
        InputError: with the name.
    """
    if out.suffix != ".json":
        raise InputError(f"--out is {str(out)!r}: write a name that ends in .json, in a folder that exists.")
    check_writable(out, "--out")


def names(text: str) -> list[str]:
    """Return the words of "a, b,c"."""
    return [name.strip() for name in text.split(",") if name.strip()]


def counts_of(steps: str) -> list[int]:
    """Return the numbers of ``--steps``, each once: "6", "4,6,8", "4-12".

    Raises:
        InputError: if one is no number from 1 to 9999, or a range does not rise.
    """
    found: list[int] = []
    for part in names(steps) or [steps]:
        match = re.fullmatch(r"([1-9][0-9]{0,3})(?:-([1-9][0-9]{0,3}))?", part)
        if match is None:
            raise InputError(f"--steps is {steps!r}: give whole numbers of at least 1, as 6, 4-12 or 4,6,8.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InputError(f"--steps is {steps!r}: a range rises, write {last}-{first}.")
        found.extend(range(first, last + 1))
    return list(dict.fromkeys(found))

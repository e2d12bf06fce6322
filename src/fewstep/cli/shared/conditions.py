"""Seeds, classes and prompts as words of the command line."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from fewstep.errors import InputError
from fewstep.guidance import ClassifierFree
from fewstep.models.model import Model
from fewstep.storage import read_text

__all__ = ["class_numbers", "conditions_of", "parse_seeds", "read_prompts"]


MOST = 100_000_000
"""The most samples of a run."""
WHOLE = re.compile("[0-9]{1,30}")


def parse_seeds(text: str | None, num: int | None) -> range | list[int]:
    """Return the seeds of "0-49999" or "3,5,8-10"; without a text, 0 to ``num`` − 1.

    Raises:
        InputError: if the text is no such list, a seed is repeated, or there are not ``num``.
    """
    if num is not None and not 1 <= num <= MOST:
        raise InputError(f"--num is {num}: it must be at least 1 and at most {MOST}.")
    if text is None:
        if num is None:
            raise InputError("how many samples? Give --num 1000, or --seeds 0-999.")
        return range(num)
    seeds: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        ends = [low, high] if dash else [low, low]
        if not all(WHOLE.fullmatch(end) for end in ends):
            raise InputError(f"--seeds is {text!r}: write whole numbers of at least 0, as 0-49999 or 3,5,8-10.")
        first, last = map(int, ends)
        if last < first:
            raise InputError(f"--seeds is {text!r}: a range rises, write {last}-{first}.")
        if last >= 2**63:
            raise InputError(f"--seeds is {text!r}: seeds are below 2**63.")
        if last - first >= MOST:
            raise InputError(f"--seeds is {text!r}: a run makes at most {MOST} samples.")
        seeds.extend(range(first, last + 1))
    if len(set(seeds)) != len(seeds):
        raise InputError(f"--seeds is {text!r}: a seed is repeated, and would give the same sample twice.")
    if num is not None and num != len(seeds):
        raise InputError(f"--seeds {text} are {len(seeds)} seeds, --num is {num}: leave one of them out.")
    return seeds


def class_numbers(text: str, seeds: Sequence[int], num_classes: int | None) -> list[int] | None:
    """Return a class for each seed, or None for no class; "each" is the seed modulo the number of classes.

    Raises:
        InputError: if the text is no class of the model.
    """
    if text == "none" or (num_classes is None and text == "each"):
        return None
    if num_classes is None:
        raise InputError(f"--class is {text!r}, but this model has no classes: leave it out.")
    if text == "each":
        return [seed % num_classes for seed in seeds]
    if not WHOLE.fullmatch(text.removeprefix("-")):
        raise InputError(f"--class is {text!r}: give a number from 0 to {num_classes - 1}, 'each' or 'none'.")
    if not 0 <= int(text) < num_classes:
        raise InputError(f"--class is {text}: the model has the classes 0 to {num_classes - 1}.")
    return [int(text)] * len(seeds)


def read_prompts(prompt: str | None, file: Path | None) -> list[str]:
    """Return the prompts of ``--prompt`` or of the lines of ``--prompts``; a warning tells of lines that are empty.

    Raises:
        InputError: if both are given, or the file is missing or empty.
    """
    if prompt is not None and file is not None:
        raise InputError("--prompt and --prompts are both given: leave one of them out.")
    if file is None:
        return [] if prompt is None else [prompt]
    every = read_text(file, "the file of --prompts").splitlines()
    lines = [line.strip() for line in every if line.strip()]
    if not lines:
        raise InputError(f"--prompts is {str(file)!r}, which is empty: write a prompt a line.")
    if len(lines) < len(every):
        warnings.warn(
            f"--prompts is {str(file)!r}, of whose {len(every)} lines {len(every) - len(lines)} are empty: they are "
            "left out.",
            UserWarning,
            stacklevel=3,
        )
    return lines


def conditions_of(
    model: Model, seeds: Sequence[int], class_: str, prompts: Sequence[str]
) -> list[int] | list[str] | None:
    """Return the condition of each seed: its prompt (the seed modulo their number) or its class.

    Raises:
        InputError: if the model takes no prompts, or needs them, the class is unknown, or guidance has neither.
    """
    if prompts and model.embed is None:
        raise InputError("this model takes no prompts: leave --prompt and --prompts out.")
    if model.embed is not None:
        if not prompts:
            raise InputError("this model needs a prompt: add --prompt 'a red bicycle', or --prompts FILE.")
        return [prompts[seed % len(prompts)] for seed in seeds]
    classes = class_numbers(class_, seeds, model.denoiser.num_classes)
    if classes is None and isinstance(model.denoiser, ClassifierFree):
        raise InputError(
            "guidance moves towards a class or a prompt, and there is none: choose --class, or leave --guidance out."
        )
    return classes

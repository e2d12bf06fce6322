"""Scheduler settings by kind: whole numbers, numbers, truth values and words."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fewstep.checks import as_integer, as_real, shown
from fewstep.errors import InputError

__all__ = ["check_kinds"]

KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "int": (lambda value: as_integer(value) is not None, "a whole number"),
    "float": (lambda value: as_real(value) is not None, "a number"),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "str": (lambda value: isinstance(value, str), "a word"),
}


def check_kinds(config: Mapping[str, Any], made: Callable[..., Any]) -> None:
    """Check settings against the annotations of the constructor ``made``; what is no plain kind is left to others.

    Raises:
        InputError: if one is of another kind, as where a configuration's file has null for a number.
    """
    for name, parameter in inspect.signature(made).parameters.items():
        kinds = str(parameter.annotation).split(" | ")
        kind = "str" if kinds[0].startswith("Literal") else kinds[0]
        value = config.get(name, parameter.default)
        if kind not in KINDS or len(set(kinds) - {kinds[0], "None"}) or (value is None and "None" in kinds):
            continue
        fits, words = KINDS[kind]
        if not fits(value):
            raise InputError(f"{name} is {shown(value)}: give {words}.")

"""Scheduler settings by kind: whole numbers, numbers, truth values and words."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fewstep.checks import as_integer, as_real, shown
from fewstep.errors import InputError

__all__ = ["as_kinds", "several"]

KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "int": (lambda value: as_integer(value) is not None, "a whole number"),
    "float": (lambda value: as_real(value) is not None, "a number"),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "str": (lambda value: isinstance(value, str), "a word"),
}


CONVERTED: dict[str, Callable[[Any], Any]] = {"int": as_integer, "float": as_real}


def several(config: Mapping[str, Any], name: str) -> list[Any]:
    """Return the values of a setting that is a sequence.

    Raises:
        InputError: if it is none.
    """
    value = config[name]
    try:
        if isinstance(value, (str, bytes, Mapping)):
            raise TypeError
        return list(value.tolist() if hasattr(value, "tolist") else value)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise InputError(f"{name} is {shown(value)}: give a list of numbers.") from error


def as_kinds(config: Mapping[str, Any], made: Callable[..., Any]) -> dict[str, Any]:
    """Return the numbers among settings as Python's, by the annotations of the constructor ``made``.

    What is no plain kind is left to others.

    Raises:
        InputError: if one is of another kind, as where a configuration's file has null for a number.
    """
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(made).parameters.items():
        kinds = str(parameter.annotation).split(" | ")
        kind = "str" if kinds[0].startswith("Literal") else kinds[0]
        value = config.get(name, parameter.default)
        if kind not in KINDS or len(set(kinds) - {kinds[0], "None"}) or (value is None and "None" in kinds):
            continue
        fits, words = KINDS[kind]
        if not fits(value):
            raise InputError(f"{name} is {shown(value)}: give {words}.")
        if kind in CONVERTED:
            found[name] = CONVERTED[kind](value)
    return found

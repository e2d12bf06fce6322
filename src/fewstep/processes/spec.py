"""Names, and settings written as one word: ``name:key=value,key=value``."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Container, Mapping
from inspect import Parameter, signature
from typing import Any, TypeVar

from fewstep.checks import shown
from fewstep.errors import InputError, unknown_name

__all__ = ["build", "check", "literal", "parse", "register"]

Made = TypeVar("Made")
NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
LONGEST = 1000
"""The most characters of a value that is read as a literal."""
OUTSIDE = re.compile(r",(?![^(\[]*[)\]])")
"""A comma that is not in brackets."""
TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def parse(spec: str) -> tuple[str, dict[str, Any]]:
    """Return the name and settings of ``name:key=value,key=value``; values are Python literals, true, false or words.

    Raises:
        InputError: if a setting has no "=".
    """
    if not isinstance(spec, str):
        raise InputError(f"{shown(spec)} is not a name: write one, with settings if needed, as name:key=value.")
    name, _, rest = spec.partition(":")
    settings: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in OUTSIDE.split(rest))):
        key, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"{part!r} in {spec!r} is not a setting: write name:key=value,key=value.")
        settings[key.strip()] = literal(value.strip())
    return name.strip().lower(), settings


def literal(text: str) -> Any:
    """Return a value as it is written: a Python literal, true or false, or the words themselves."""
    if text.lower() in TRUTH:
        return TRUTH[text.lower()]
    if len(text) > LONGEST:  # The parser has its limits.
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def register(kind: str, name: str, made: Any, known: dict[str, Any]) -> None:
    """Enter the class or function ``made`` into ``known``; defined anew (a reload, a notebook's cell), it is replaced.

    Raises:
        InputError: if the name cannot be written as a word, or another definition has it.
    """
    if not NAME.fullmatch(name):
        raise InputError(
            f"the {kind}'s name is {name!r}: write lower-case letters and digits, joined by - or _, as 'my-{kind}'."
        )
    before = known.get(name)
    if before is not None and (before.__module__, before.__qualname__) != (made.__module__, made.__qualname__):
        taken = f"{before.__module__}.{before.__qualname__}"
        raise InputError(f"the {kind} {name!r} is {taken} already: choose another name for {made.__qualname__}.")
    known[name] = made


def check(
    kind: str,
    name: str,
    known: Mapping[str, Callable[..., Any]],
    settings: Mapping[str, Any],
    besides: Container[str] = (),
) -> None:
    """Refuse what ``build`` would refuse before it calls anything.

    Args:
        kind: what is named, for the message.
        name: the name.
        known: what each name stands for.
        settings: those that were written.
        besides: parameters that are no settings.

    Raises:
        InputError: if there is no such name, a setting is not one of those that it has (with the near match), or a
            word stands where it is true or false.
    """
    if name not in known:
        raise unknown_name(kind, name, known)
    keywords = (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    parameters = signature(known[name]).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind in keywords and p.name not in besides}
    for key, value in settings.items():
        if key not in defaults:
            raise unknown_name(f"setting of {kind} {name!r}", key, defaults)
        if isinstance(defaults[key], bool) and not isinstance(value, bool):
            raise InputError(f"{key}={value!r} in {kind} {name!r}: write {key}=true or {key}=false.")


def build(kind: str, name: str, known: Mapping[str, Callable[..., Made]], settings: Mapping[str, Any]) -> Made:
    """Return ``known[name](**settings)``.

    Raises:
        InputError: as ``check``, and if the values do not fit.
    """
    check(kind, name, known, settings)
    try:
        return known[name](**settings)
    except InputError:
        raise
    except (OverflowError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{kind} {name!r} does not take these settings: {error}.") from error

"""Commands made of settings: each field of a dataclass is an option."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Callable
from dataclasses import MISSING, fields
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any, get_type_hints

from fewstep.cli.settings.options import check_words
from fewstep.errors import InputError

__all__ = ["command", "spelled"]

WRITTEN = ("out", "plot")
"""The options that name what is written."""


def command(settings: type, run: str) -> Callable[..., None]:
    """Return a function for typer: its parameters are the fields of ``settings``, its help that class's docstring.

    Args:
        settings: a dataclass whose fields are annotated with ``typer.Option`` or ``typer.Argument``.
        run: "module:function", imported when the command is called, and called with the settings: so that help texts
            and mistyped options wait for no torch.
    """
    hints = get_type_hints(settings, include_extras=True)

    def called(**values: Any) -> None:
        chosen = settings(**{key: tuple(one) if isinstance(one, list) else one for key, one in values.items()})
        check_words(chosen)
        _refuse_overwriting(chosen)
        module, _, function = run.partition(":")
        getattr(importlib.import_module(module), function)(chosen)

    parameters = [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(settings)
    ]
    called.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    called.__doc__ = settings.__doc__
    return called


def _refuse_overwriting(settings: Any) -> None:
    """Refuse an output that is one of the inputs.

    Raises:
        InputError: with both options.
    """
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    for written in WRITTEN:
        out = values.get(written)
        if out is None:
            continue
        for name, value in values.items():
            named = str(value).split(",") if name not in WRITTEN and isinstance(value, (str, Path)) else []
            if any(_same(one.strip(), Path(out)) for one in named):
                raise InputError(f"--{written} is {str(out)!r}, which --{name.rstrip('_')} names too: choose another.")


def _same(name: str, path: Path) -> bool:
    try:
        return Path(name).samefile(path)
    except (OSError, ValueError):
        return False


def spelled(name: str, settings: Any) -> str:
    """Return the command line ``fewstep name …`` of these settings: the options that differ from the defaults."""
    words = ["fewstep", name]
    for field in fields(settings):
        value, option = getattr(settings, field.name), field.name.rstrip("_").replace("_", "-")
        if value == field.default:
            continue
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
            continue
        for one in value if isinstance(value, tuple) else (value,):
            words += [f"--{option}", f"{one}"]
    return shlex.join(words)

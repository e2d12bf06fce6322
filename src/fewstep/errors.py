"""The exceptions of fewstep."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "FewstepError",
    "InputError",
    "MissingPackageError",
    "NonFiniteStateError",
    "one_line",
    "reason_of",
    "unknown_name",
]


LONGEST = 1000
"""The most characters of a message; what is too long is cut in its middle."""
HIDDEN = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {10: " ", 9: " ", 13: " "}


class FewstepError(Exception):
    """Base class of every exception that fewstep raises on purpose: its message is one line that a terminal can show.

    Values from outside stand in messages: control characters in them are shown as escapes, and long ones are cut.
    """

    def __init__(self, message: object = "", *more: object) -> None:
        super().__init__(one_line(str(message)), *more)


class InputError(FewstepError, ValueError):
    """A setting or an input is wrong: the message says what, its value, and what to write instead."""


class NonFiniteStateError(FewstepError, ArithmeticError):
    """The state stopped being finite while sampling: the message names the step and its time."""


class MissingPackageError(FewstepError, ImportError):
    """An optional package is not installed: the message is the line that installs it."""


def one_line(text: str) -> str:
    """Return ``text`` as one line without control characters and lone surrogates, cut in the middle if it is long."""
    text = text.translate(HIDDEN).encode("utf-8", "backslashreplace").decode()
    half = (LONGEST - 3) // 2
    return text if len(text) <= LONGEST else f"{text[:half]} … {text[-half:]}"


def reason_of(error: BaseException, line: int = 0) -> str:
    """Return the first line of another package's error, or the last (−1), where TorchScript says what is wrong.

    An error without words is its class's name.
    """
    lines = str(error).strip().splitlines()
    return lines[line].strip() if lines else type(error).__name__


def unknown_name(kind: str, name: object, known: Iterable[str]) -> InputError:
    """Return the error for a name that is not among ``known``: the nearest ones first, all of them last."""
    names, wanted = sorted(known), str(name).lower()
    if not names:
        return InputError(f"unknown {kind} {name!r}: there is none.")
    parts = [one for one in names if len(wanted) > 2 and wanted in one.split("_") or wanted.startswith(f"{one}_")]
    near = difflib.get_close_matches(wanted, parts or names, n=2 if parts else 1, cutoff=0.0 if parts else 0.5)
    hint = f"did you mean {' or '.join(repr(one) for one in sorted(near))}? Known are" if near else "choose one of"
    return InputError(f"unknown {kind} {name!r}: {hint} {', '.join(names)}.")

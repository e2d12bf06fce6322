"""The exceptions of fewstep."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["FewstepError", "InputError", "MissingPackageError", "NonFiniteStateError", "unknown_name"]


class FewstepError(Exception):
    """Base class of every exception that fewstep raises on purpose."""


class InputError(FewstepError, ValueError):
    """A setting or an input is wrong: the message says what, its value, and what to write instead."""


class NonFiniteStateError(FewstepError, ArithmeticError):
    """The state stopped being finite while sampling: the message names the step and its time."""


class MissingPackageError(FewstepError, ImportError):
    """An optional package is not installed: the message is the line that installs it."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> InputError:
    """Return the error for a name that is not among ``known``, with the nearest match if there is one."""
    names, wanted = sorted(known), str(name).lower()
    parts = [one for one in names if len(wanted) > 2 and wanted in one.split("_") or wanted.startswith(f"{one}_")]
    near = parts or difflib.get_close_matches(wanted, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "choose one of them."
    return InputError(f"unknown {kind} {name!r}: known are {', '.join(names)}; {hint}")

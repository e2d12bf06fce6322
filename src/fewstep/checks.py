"""Checked conversions: arguments as the numbers and names that they mean, or an error that says what is wrong.

Python's own numbers, NumPy's, and 0-dimensional arrays and tensors are numbers here; bool and text are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.errors import InputError, reason_of, unknown_name

__all__ = [
    "as_given",
    "as_integer",
    "as_number",
    "as_real",
    "as_word",
    "check_callback",
    "checked_shape",
    "computable",
    "described",
    "device",
    "floating",
    "flag",
    "function",
    "instance",
    "levels",
    "real",
    "shown",
    "tensor",
    "whole",
]


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The types that are computed with; torch has others, float8, that it can only store."""


def shown(value: object) -> str:
    """Return ``value`` as a message shows it: on one line, not too long, and even where it has no ``repr``."""
    try:
        text = repr(value)
    except Exception:  # An integer of too many digits, or an object whose repr fails.
        text = f"<{type(value).__name__}>"
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}…"


def as_number(value: Any) -> Any:
    """Return ``value`` as a Python number if it is one, else None; a 0-dimensional array or tensor is its element."""
    if isinstance(value, (bool, str, bytes)):
        return None
    if not isinstance(value, (Integral, Real)) and getattr(value, "ndim", None) == 0:
        try:
            value = value.item()
        except Exception:  # A tensor on the meta device has no value.
            return None
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return None
    if isinstance(value, Integral):
        return int(value)
    return value if isinstance(value, Real) else None


def as_integer(value: Any) -> int | None:
    """Return ``value`` as an int if it is a whole number, 8.0 included, else None."""
    number = as_number(value)
    if isinstance(number, int):
        return number
    if number is None or not math.isfinite(number) or number != int(number):
        return None
    return int(number)


def as_real(value: Any) -> float | None:
    """Return ``value`` as a float if it is a number within float64, NaN and infinity included, else None."""
    number = as_number(value)
    try:
        return None if number is None else float(number)
    except (OverflowError, TypeError, ValueError):
        return None


def whole(
    name: str,
    value: Any,
    least: int = 1,
    most: int | None = None,
) -> int:
    """Return ``value`` as an int.

    Raises:
        InputError: if it is not a whole number from ``least`` to ``most``.
    """
    number = as_integer(value)
    if number is None or number < least or (most is not None and number > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{name} is {shown(value)}: give a whole number {bounds}.")
    return number


def real(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: bool = False,
    hint: str = "",
) -> float:
    """Return ``value`` as a finite float.

    Args:
        name: the argument's, for the message.
        value: what was given.
        low: the least, included.
        high: the most, included.
        above: whether ``low`` itself is left out.
        hint: what to write instead, in place of the bounds.

    Raises:
        InputError: if it is not a finite number within the bounds.
    """
    number = as_real(value)
    if number is None or not math.isfinite(number) or not low <= number <= high or (above and number == low):
        bounds = [f"{'above' if above else 'of at least'} {low:g}"] if low > -math.inf else []
        bounds += [f"at most {high:g}"] if high < math.inf else []
        hint = hint or f"give a finite number {' and '.join(bounds)}".strip()
        raise InputError(f"{name} is {shown(value)}: {hint}.")
    return number


def flag(name: str, value: Any) -> bool:
    """Return ``value`` if it is True or False, NumPy's included.

    Raises:
        InputError: if it is anything else.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} is {shown(value)}: write True or False.")
    return bool(value)


def computable(value: Any) -> bool:
    """Return whether ``value`` is a dense tensor with a batch, of a floating-point type that torch computes with."""
    return isinstance(value, Tensor) and value.ndim > 0 and value.dtype in FLOATS and value.layout == torch.strided


def described(value: Any) -> str:
    """Return a tensor's shape, type and, unless it is dense, layout; of anything else its ``repr``."""
    if not isinstance(value, Tensor):
        return shown(value)
    layout = "" if value.layout == torch.strided else f" {value.layout}"
    return f"{tuple(value.shape)} {value.dtype}{layout}"


def tensor(name: str, value: Any, hint: str) -> Tensor:
    """Return ``value`` if it is a tensor of floating-point numbers with a batch, and not on the meta device.

    Raises:
        InputError: if it is not; ``hint`` says what to give.
    """
    if not computable(value) or value.is_meta:
        raise InputError(f"{name} is {described(value)}: {hint}.")
    return value


def as_given(value: Any) -> Tensor:
    """Return ``value`` as a tensor: a tensor as it is, all else on the CPU, whatever the default device."""
    return value if isinstance(value, Tensor) else torch.as_tensor(value, device="cpu")


def instance(kind: type, name: str, value: Any, hint: str) -> Any:
    """Return ``value`` if it is an object of ``kind``.

    Raises:
        InputError: if it is not; ``hint`` says what to give.
    """
    if not isinstance(value, kind):
        raise InputError(f"{name} is {shown(value)}: {hint}.")
    return value


def function(name: str, value: Any, hint: str) -> Any:
    """Return ``value`` if it can be called.

    Raises:
        InputError: if it cannot; ``hint`` says what to give.
    """
    if not callable(value):
        raise InputError(f"{name} is {shown(value)}: {hint}.")
    return value


def device(name: str, value: Any, *, meta: bool = False) -> torch.device:
    """Return ``value`` as a device that is here and holds numbers; ``meta`` lets the one through that holds none.

    Raises:
        InputError: if it is none; it says what torch says.
    """
    if not isinstance(value, (str, torch.device)):
        raise InputError(f"{name} is {shown(value)}: write cpu, or cuda on a GPU.")
    try:
        made = torch.device(value)
        torch.empty(0, device=made)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        reason = reason_of(error).rstrip(".")
        raise InputError(f"{name} is {shown(str(value))}: {reason}; write cpu, or cuda on a GPU.") from error
    if made.type == "meta" and not meta:
        raise InputError(f"{name} is 'meta', which holds no numbers: write cpu, or cuda on a GPU.")
    return made


def floating(name: str, value: Any) -> torch.dtype:
    """Return ``value`` if it is a type of real floating-point numbers.

    Raises:
        InputError: if it is not.
    """
    if not isinstance(value, torch.dtype) or not value.is_floating_point:
        raise InputError(f"{name} is {shown(value)}: give torch.float32, or another type of real numbers.")
    return value


def levels(name: str, values: Any) -> tuple[float, ...]:
    """Return noise levels σ/α as finite floats above 0.

    Raises:
        InputError: if they are no sequence of such numbers.
    """
    if isinstance(values, (str, bytes, dict)):
        raise InputError(f"{name} is {shown(values)}: give noise levels σ/α, such as (0.5, 1.0).")
    try:
        each = list(values)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise InputError(f"{name} is {shown(values)}: give noise levels σ/α, such as (0.5, 1.0).") from error
    return tuple(real("a noise level σ/α", one, 0.0, above=True) for one in each)


def check_callback(name: str, value: Any) -> None:
    """Refuse what is neither None nor callable.

    Raises:
        InputError: if it is something else.
    """
    if value is not None and not callable(value):
        raise InputError(f"{name} is {shown(value)}: give a function, or leave it out.")


def checked_shape(shape: Any) -> tuple[int, ...]:
    """Return the shape of one sample as a tuple.

    Raises:
        InputError: if it is no sequence of whole numbers above 0.
    """
    try:
        sizes = [as_integer(size) for size in shape]
    except TypeError:
        sizes = [None]
    if not sizes or isinstance(shape, (str, bytes)) or not all(size is not None and 0 < size < 2**31 for size in sizes):
        raise InputError(f"shape is {shown(shape)}: give the shape of one sample, such as (3, 32, 32).")
    return tuple(size for size in sizes if size is not None)


def as_word(kind: str, value: Any, known: Iterable[str]) -> str:
    """Return ``value`` if it is one of the ``known`` words.

    Raises:
        InputError: if it is not; it names the nearest one.
    """
    known = list(known)
    if not isinstance(value, str) or value not in known:
        raise unknown_name(kind, value, known)
    return value

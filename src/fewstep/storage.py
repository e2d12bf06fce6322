"""The files of fewstep: JSON read by a schema, and whole-or-nothing writing."""

from __future__ import annotations

import functools
import json
import os
import platform
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Tag, TypeAdapter, ValidationError
from pydantic_core import from_json

from fewstep.checks import shown
from fewstep.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "DAMAGE",
    "LOCK",
    "UNFINISHED",
    "Plain",
    "Schema",
    "Stored",
    "check_folder_writable",
    "check_plain",
    "check_readable",
    "check_writable",
    "checked",
    "json_text",
    "parsed",
    "read_json",
    "read_text",
    "remove_leftovers",
    "versions",
    "write_arrays",
    "write_json",
    "write_text",
    "write_whole",
]

UNFINISHED = ".fewstep-"
"""Prefix of files and folders that are still being written."""
LOCK = f"{UNFINISHED}lock"
"""The file by which a process holds a folder; see ``fewstep.lock``."""
DAMAGE = (
    OSError, ValueError, TypeError, LookupError, EOFError, SyntaxError, TokenError, RuntimeError, MemoryError,
    ArithmeticError, struct.error, zipfile.BadZipFile, zlib.error
)  # fmt: skip
"""Exceptions that reading arrays or pictures from a damaged file may raise."""
WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
LARGEST = 2**28
"""Characters read from a file at most."""
WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is unknown",
    "unexpected_keyword_argument": "is unknown",
    "finite_number": "is no finite number",
}
"""Wording of the frequent errors of pydantic, by their type."""
Name = str | os.PathLike[str]
Kind = TypeVar("Kind")


class Schema(BaseModel):
    """What a JSON object must hold: types are exact (no numbers as text), numbers are finite."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())


def parsed(text: str | bytes, schemas: Mapping[str, type[Kind]] | type[Kind], what: str) -> Kind:
    """Return the JSON object in ``text`` by its schema.

    Args:
        text: JSON.
        schemas: one schema, or one for each text that the object's "format" may be.
        what: what is read, such as "the plan", for messages.

    Raises:
        InputError: if the text is no JSON object, is of another format, or a field is missing or of another type; it
            names the field.
    """
    if not isinstance(text, (str, bytes)):
        raise InputError(f"{what} is {type(text).__name__}: give JSON text.")
    formats: Mapping[str, Any] = schemas if isinstance(schemas, Mapping) else {}
    kept: Any = tuple(formats.items()) if formats else schemas
    try:
        return _adapter(kept).validate_json(text)
    except ValidationError as error:
        raise _told(error, what, tuple(formats)) from error


def checked(data: Any, schemas: Mapping[str, type[Kind]] | type[Kind], what: str) -> Kind:
    """Return plain data, such as part of a configuration, by its schema; see ``parsed``.

    Raises:
        InputError: if JSON cannot hold it, or it does not fit.
    """
    try:
        text = json.dumps(data, allow_nan=False)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise InputError(f"{what} is {shown(data)}: give what JSON can hold ({error}).") from error
    return parsed(text, schemas, what)


@functools.cache
def _adapter(schemas: Any) -> TypeAdapter[Any]:
    """Return the validator of one schema, or of the schemas by the object's format."""
    if not isinstance(schemas, tuple):
        return TypeAdapter(schemas)
    tagged = tuple(Annotated[schema, Tag(name)] for name, schema in schemas)
    format_of = Discriminator(lambda data: data.get("format") if isinstance(data, dict) else None)
    union: Any = Annotated[Union[tagged], format_of]  # noqa: UP007  # A union of what is in a tuple.
    return TypeAdapter(union)


def read_json(path: Name, schemas: Mapping[str, type[Kind]] | type[Kind], what: str) -> Kind:
    """Return the JSON object in a file by its schema; see ``parsed``.

    Raises:
        InputError: if the file cannot be read or does not fit; it names the file and the field.
    """
    return parsed(read_text(path, what), schemas, f"{what} {os.fspath(path)!r}")


def read_text(path: Name, what: str) -> str:
    """Return the text of a file in UTF-8.

    Raises:
        InputError: if it is no regular file, cannot be read, is larger than 256 MiB or no text.
    """
    check_readable(path, what)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"{what} {os.fspath(path)!r} cannot be read: {_reason(error)}.") from error
    if len(text) > LARGEST:
        raise InputError(
            f"{what} {os.fspath(path)!r} has more than {LARGEST >> 20} MiB of text: it is some other file."
        )
    return text


def check_readable(path: Name, what: str) -> Path:
    """Return ``path`` if a regular file is there: opening a pipe or a device may block for ever.

    Raises:
        InputError: if there is none, or its state cannot be read.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"{what} is {shown(path)}, which cannot be read: give the path of a file.")
    try:
        mode = os.stat(path).st_mode
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"{what} {_named(path)} cannot be read: {_reason(error)}.") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{what} {os.fspath(path)!r} is a folder: give a file.")
    if not stat.S_ISREG(mode):
        raise InputError(f"{what} {os.fspath(path)!r} is a pipe or a device: give a file.")
    return Path(path)


def check_writable(path: Name, what: str) -> Path:
    """Return ``path`` if a file can be written there; nothing is left behind.

    Raises:
        InputError: if its folder is missing or takes no files, or something other than a file has the name.
    """
    path = check_folder_writable(path, what)
    if path.is_dir():
        raise InputError(f"{what} is {str(path)!r}, which is a folder: choose the name of a file.")
    if path.exists() and not path.is_file():
        raise InputError(f"{what} is {str(path)!r}, which is a pipe or a device: choose the name of a file.")
    return path


def check_folder_writable(path: Name, what: str) -> Path:
    """Return ``path`` if its folder takes a file or folder of that name; nothing is left behind.

    Raises:
        InputError: if the folder is missing, is not writable or takes no such name, or a file of that name is
            read-only.
    """
    try:
        path = Path(path)
        parent = path.absolute().parent
        if not parent.is_dir():
            raise InputError(f"{what} is {str(path)!r}: the folder {str(parent)!r} does not exist; make it first.")
        if path.is_file() and not (os.access(path, os.W_OK) and path.stat().st_mode & WRITABLE):
            raise InputError(
                f"{what} is {str(path)!r}, a file that is read-only: choose another name, or allow writing."
            )
        scratch = _scratch(parent)
        try:
            (scratch / path.name).touch()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except (OSError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what} is {_named(path)}, which cannot be written: {_reason(error)}.") from error
    return path


def write_whole(path: Name, write: Callable[[Path], object]) -> None:
    """Call ``write`` on a temporary name beside ``path``, then rename it: ``path`` is whole or untouched.

    Raises:
        InputError: if the disk refuses.
    """
    path, folder = Path(path), None
    try:
        folder = _scratch(path.absolute().parent)
        write(folder / path.name)
        os.replace(folder / path.name, path)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written: {error}.") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Name, text: str) -> None:
    """Write text in UTF-8, whole or not at all.

    Raises:
        InputError: if the disk refuses.
    """
    write_whole(path, lambda part: part.write_text(text, "utf-8"))


def write_arrays(path: Name, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as a compressed npz, whole or not at all; none may hold objects.

    Raises:
        InputError: if the disk refuses.
    """

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    write_whole(path, write)


def write_json(path: Name, data: object) -> None:
    """Write JSON, whole or not at all.

    Raises:
        InputError: if the disk refuses, or a number is not finite, which JSON cannot say.
    """
    write_text(path, json_text(data) + "\n")


def json_text(data: object) -> str:
    """Return ``data`` as JSON.

    Raises:
        InputError: if a number is not finite, or JSON has no such value.
    """
    try:
        return json.dumps(data, indent=1, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"this cannot be written as JSON: {error}.") from error


def check_plain(name: str, value: Any) -> None:
    """Refuse what is no object of JSON that can be read again, by the name of the argument.

    Raises:
        InputError: if it is no mapping, a key is no text, a number is not finite, or JSON has no such value.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"{name} is {shown(value)}: give a dict whose keys are words.")
    try:
        from_json(json_text(dict(value)))
    except (InputError, ValueError) as error:
        raise InputError(f"{name} is {shown(value)}: {error}") from error
    if not _keyed_by_words(value):
        raise InputError(f"{name} is {shown(value)}: give a dict whose keys are words, also within.")


def _keyed_by_words(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _keyed_by_words(inner) for key, inner in value.items())
    return not isinstance(value, (list, tuple)) or all(map(_keyed_by_words, value))


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files of killed runs from a folder that no other run writes to."""
    for path in folder.glob(f"{UNFINISHED}*"):
        if path.name == LOCK:
            continue  # Of this run.
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    json_text(data)
    return data


Plain = Annotated[dict[str, Any], AfterValidator(_plain)]
"""Any JSON object whose numbers are finite."""


class Stored(ABC):
    """An object that is kept as a JSON file."""

    @abstractmethod
    def to_json(self) -> str:
        """Return it as JSON; ``from_json`` gives the same back."""

    @classmethod
    @abstractmethod
    def from_json(cls, text: str) -> Self:
        """Return what ``to_json`` wrote.

        Raises:
            InputError: if the text holds something else or a field is wrong; it names the field.
        """

    def save(self, path: Name) -> None:
        """Write it to ``path`` as JSON, whole or not at all.

        Raises:
            InputError: if the disk refuses.
        """
        write_text(path, self.to_json() + "\n")

    @classmethod
    def load(cls, path: Name) -> Self:
        """Return what ``save`` wrote to ``path``.

        Raises:
            InputError: if the file cannot be read or holds something else; it names the file.
        """
        text = read_text(path, f"the {cls.__name__.lower()}")
        try:
            return cls.from_json(text)
        except InputError as error:
            raise InputError(f"{os.fspath(path)!r}: {error}") from error


def _told(error: ValidationError, what: str, formats: tuple[str, ...]) -> InputError:
    """Return the fault as one sentence: the one that a schema raised, or that of the field that lies deepest."""
    details = error.errors(include_url=False)
    raised = [found for one in details if isinstance(found := one.get("ctx", {}).get("error"), InputError)]
    if raised:
        return raised[0]
    detail = max(details, key=lambda one: len(one["loc"]))  # Of a union's members the one that came closest.
    kind, reason, value = detail["type"], detail["msg"], detail["input"]
    if kind.startswith("json_"):
        return InputError(f"{what} cannot be read as JSON ({reason.removeprefix('Invalid JSON: ')}): write it anew.")
    if kind.startswith("union_tag") and not detail["loc"]:
        found = value.get("format") if isinstance(value, dict) else type(value).__name__
        if isinstance(value, dict) and "format" not in value:
            return InputError(f"{what} holds no format: it is another file; give one with {formats[0]!r}.")
        return InputError(f"{what}: the format is {shown(found)}; this version of fewstep reads {formats[0]!r}.")
    place = ""
    for part in detail["loc"]:
        if isinstance(part, int):
            place += f"[{part}]"
        elif part not in formats and "[" not in part:  # else a member of a union
            place += f".{part}" if place else part
    if kind in WORDS:
        return InputError(f"{what} is damaged: {place} {WORDS[kind]}; write it anew.")
    reason = reason.replace("Input should be", "should be")
    return InputError(f"{what} is damaged: {f'{place} ' if place else 'it '}is {shown(value)}, and {reason}.")


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of the installed ones of ``packages``: what made a file."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # fewstep itself may be run from a checkout that is not installed.
            continue
    return found


def _named(path: object) -> str:
    return repr(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else shown(path)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def _scratch(parent: Path) -> Path:
    """Return a new empty folder beside what is to be written, so that a rename does not cross disks."""
    return Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=parent))

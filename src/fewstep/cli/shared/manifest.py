"""The manifest of a set of samples: everything that decides what they are, and what is in the folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os.path import commonprefix
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict

from fewstep import storage
from fewstep.cli.shared.workers import Workers
from fewstep.errors import InputError
from fewstep.lock import held
from fewstep.plan import Plan
from fewstep.storage import UNFINISHED, Plain, Schema, json_text, read_json, write_json

__all__ = ["FILE", "FORMAT", "enter", "held_by", "spelled", "versions"]

FILE = "manifest.json"
FORMAT = "fewstep-samples/1"
FREE = ("versions", "files")
"""Entries that may differ when a run continues a set: the versions, and what follows from the settings."""
ALSO = "versions_also"
"""The versions of the runs that went on with a set, where they differ from those of the first."""


class _Held(Schema):
    """A manifest that is there, of ``fewstep generate`` or another command."""

    model_config = ConfigDict(extra="allow")

    format: str
    settings: Plain
    plan: str = ""
    versions: Plain
    versions_also: list[Plain] = []
    files: list[str] = []


def versions() -> dict[str, str]:
    """Return the versions of Python and the packages that make samples, torch's threads, and the GPU in use."""
    found = {"threads": str(torch.get_num_threads())}
    if torch.cuda.is_initialized():
        found |= {"cuda": str(torch.version.cuda), "gpu": torch.cuda.get_device_name()}
    return storage.versions("fewstep", "torch", "numpy", "diffusers", "transformers") | found


def spelled(seeds: Sequence[int]) -> str:
    """Return seeds as "0-99,120": runs of neighbours are joined."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ",".join(f"{low}-{high}" if high > low else str(low) for low, high in runs)


def enter(folder: Path, manifest: Mapping[str, Any], leads: bool = True) -> None:
    """Make the folder the home of this manifest; a run continues one that has the same manifest.

    Versions may differ: those of each run that goes on are added, by the process that ``leads``.

    Args:
        folder: there already; see ``held_by``.
        manifest: what ``fewstep generate`` was asked for.
        leads: whether this process is the first of several, or the only one.

    Raises:
        InputError: if the folder holds other samples or other things, or cannot be written; nothing is changed.
    """
    path = folder / FILE
    _check(folder)
    if path.exists():
        there = _compared(path, manifest)
        if leads and manifest["versions"] not in (there.get("versions"), *there.get(ALSO, ())):
            write_json(path, {**there, ALSO: [*there.get(ALSO, ()), manifest["versions"]]})
        return
    write_json(path, manifest)


@contextmanager
def held_by(worker: Workers, folder: Path) -> Iterator[None]:
    """Hold the folder for this run, which the leading process does for all; it is tried before any work.

    Raises:
        InputError: if it holds other things, cannot be written, or is held by another run.
    """
    if worker.index:
        yield
        return
    _check(folder)
    with held(folder, folder):
        yield


def _check(folder: Path) -> None:
    """Refuse a folder that holds other things than a manifest's, or cannot be made."""
    try:
        if not folder.absolute().parent.is_dir():
            raise InputError(f"--out is {str(folder)!r}: the folder above it does not exist; make it first.")
        if (folder / FILE).exists() or not folder.exists():
            return
        if folder.is_dir() and all(path.name.startswith(UNFINISHED) for path in folder.iterdir()):
            return
    except OSError as error:
        raise InputError(f"--out is {str(folder)!r}, which cannot be read: {error.strerror or error}.") from error
    raise InputError(f"--out is {str(folder)!r}, which holds other files: choose another name or empty it.")


def _compared(path: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest that is there.

    Raises:
        InputError: if it cannot be read, or is of other settings.
    """
    held = read_json(path, _Held, "the manifest").model_dump(exclude_unset=True)
    wanted = json.loads(json_text(manifest))
    if held["format"] != wanted["format"]:
        raise InputError(
            f"{str(path.parent)!r} was made by another command ({held['format']}, not {wanted['format']}): "
            "choose another --out."
        )
    if "plan" in held:  # It may be written in the first format.
        held["plan"] = Plan.from_json(held["plan"]).to_json()
    for key in wanted:
        if key not in FREE and held.get(key) != wanted[key]:
            difference = _difference(key, held.get(key), wanted[key])
            raise InputError(
                f"{str(path.parent)!r} was made with other settings: {difference}; "
                "choose another --out, or the earlier settings."
            )
    return held


def _difference(key: str, held: Any, wanted: Any) -> str:
    if isinstance(held, dict) and isinstance(wanted, dict):
        name = next(k for k in {**held, **wanted} if held.get(k) != wanted.get(k))
        return f"{key} {_difference(name, held.get(name), wanted.get(name))}"
    before, now = repr(held), repr(wanted)
    if max(len(before), len(now)) > 60:
        start = max(0, len(commonprefix([before, now])) - 20)
        before, now = (f"…{text[start : start + 57]}…" for text in (before, now))
    return f"{key} was {before} and is {now} now"

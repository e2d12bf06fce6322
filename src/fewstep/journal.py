"""The journal of a long computation: what it has made, kept until it is done, so that a stopped one is resumed."""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.errors import FewstepError
from fewstep.lock import held
from fewstep.storage import DAMAGE, LOCK, UNFINISHED, json_text

__all__ = ["Journal", "Keep", "anew", "folder_of", "journal", "resumed", "within"]

Tensors = tuple[Tensor, ...]
Keep = Callable[[str, Callable[[], Tensors]], Tensors]
"""keep(key, make) → what ``make()`` returned now, or in a run that was stopped."""
AGREEMENT = 1e-2
"""What is made again may differ by rounding, on a GPU; a network that was changed differs by more."""


def anew(key: str, make: Callable[[], Tensors]) -> Tensors:
    """Return ``make()``: no journal."""
    return make()


def within(keep: Keep, prefix: str) -> Keep:
    """Return ``keep`` with ``prefix`` before every key."""
    return lambda key, make: keep(f"{prefix}/{key}", make)


def resumed(
    keep: Keep, key: str, make: Callable[[], Tensors], calls: int, progress: Callable[[], None]
) -> tuple[Tensor, ...]:
    """Return ``keep(key, make)``; if it was kept, ``progress`` is told of the calls that ``make`` would have made."""
    made = False

    def making() -> Tensors:
        nonlocal made
        made = True
        return make()

    found = keep(key, making)
    for _ in range(0 if made else calls):
        progress()
    return found


def _checksum(name: str, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return a hash of an entry's name and arrays: what is something else, whole or not, is made again."""
    made = hashlib.blake2b(name.encode(), digest_size=16)
    for array in arrays:
        made.update(f"{array.dtype} {array.shape};".encode())
        made.update(np.ascontiguousarray(array).tobytes())
    return np.frombuffer(made.digest(), np.uint8)


class Journal:
    """Tensors by their keys, each in a file that is whole or absent.

    What is damaged is made again. The first entry that is found is made again too, and compared: if it differs, the
    model is another one, whatever its name says, and nothing that was kept is used. Where the disk refuses, a warning
    tells that nothing more is kept.

    Args:
        folder: where its files are; made with the first one. No other process may write there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known = {path.name for path in folder.glob("*.npz")}
        self._trusted = self._full = False

    def __call__(self, key: str, make: Callable[[], Tensors]) -> Tensors:
        """Return the tensors of ``key``: ``make()``, unless they were kept."""
        name = f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.npz"
        found = self._read(name) if name in self.known else None
        if found is not None and not self._trusted:
            found = self._compared(found, make())
            self._trusted = True
        if found is None:
            found = make()
            self._write(name, found)
        return found

    def _compared(self, found: Tensors, again: Tensors) -> Tensors | None:
        """Return what was found; None, and forget all, if it is not what is made now."""
        if len(found) == len(again) and all(_agree(one, other) for one, other in zip(found, again, strict=True)):
            return found
        shutil.rmtree(self.folder, ignore_errors=True)
        self.known.clear()
        return None

    def _read(self, name: str) -> Tensors | None:
        try:
            with np.load(self.folder / name, allow_pickle=False) as data:
                arrays = [data[f"arr_{i}"] for i in range(len(data.files) - 1)]
                whole = np.array_equal(data["checksum"], _checksum(name, arrays))
        except DAMAGE:
            return None
        return tuple(map(torch.from_numpy, arrays)) if whole else None

    def _write(self, name: str, made: Tensors) -> None:
        if self._full:
            return
        part = self.folder / f"{UNFINISHED}{name}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                arrays = [_array(tensor) for tensor in made]
                with part.open("wb") as file:
                    np.savez(file, *arrays, checksum=_checksum(name, arrays))
                os.replace(part, self.folder / name)
                self.known.add(name)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            self._full = True
            warnings.warn(
                f"{str(self.folder)!r} cannot be written ({error.strerror or error}): a run that is stopped from here "
                "on is resumed from here.",
                UserWarning,
                stacklevel=2,
            )


def folder_of(out: Path) -> Path:
    """Return the folder beside ``out`` in which its journal is."""
    return out.with_name(f"{out.name}.partial")


@contextmanager
def journal(out: Path) -> Iterator[Callable[[dict[str, Any]], Journal]]:
    """Hold ``out`` for this process, and yield what begins its journal, or goes on with that of a stopped run.

    That is called with a description of all that decides the result, JSON-able. Another description has another
    journal, which stays until something is written to ``out``. Journals are removed once the block is left: all of them
    after success; after a refusal this one, since the same would be refused again. It stays where the run was stopped,
    by whatever, or the disk or memory was too small.

    Args:
        out: the file or folder that will be written.

    Raises:
        InputError: if another process holds ``out``, or nothing can be written there.
    """
    folder, begun = folder_of(out), list[Path]()

    def begin(description: dict[str, Any]) -> Journal:
        begun.append(folder / hashlib.sha256(json_text(description).encode()).hexdigest()[:16])
        return Journal(begun[-1])

    try:
        with held(folder, out):
            try:
                yield begin
            except FewstepError as error:
                for path in [] if isinstance(error.__cause__, OSError) else begun:
                    shutil.rmtree(path, ignore_errors=True)
                raise
            for path in folder.iterdir():
                if path.name != LOCK:
                    shutil.rmtree(path, ignore_errors=True)
    finally:
        with suppress(OSError):  # A journal is in it, or another process has just taken it.
            folder.rmdir()


def _agree(one: Tensor, other: Tensor) -> bool:
    other = other.detach().to("cpu", torch.float64)
    if one.shape != other.shape:
        return False
    gap, size = (one.double() - other).square().sum(), other.square().sum()
    return bool(torch.equal(one.double(), other)) or bool(gap <= AGREEMENT**2 * size)


def _array(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()

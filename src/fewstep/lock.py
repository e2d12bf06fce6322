"""A folder held by one process: another one that means to write there is refused, and a killed one blocks nobody."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fewstep.errors import InputError
from fewstep.storage import LOCK

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["held"]

HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
"""What systems answer where another process holds a lock."""

ATTEMPTS = 1000
"""How often a folder is made that is not there after all: another process may remove it."""


@contextmanager
def held(folder: Path, out: Path) -> Iterator[None]:
    """Hold ``folder``, which is made if need be, and removed at the end if nothing is in it.

    The lock is the system's, on a file in the folder: it ends with the process, however that ends, and on a shared disk
    it holds between machines. Where a file system knows no locks, nobody is refused.

    Args:
        folder: what is held.
        out: ``--out``, for messages.

    Raises:
        InputError: if another process holds it, or it cannot be made or written.
    """
    path, made = folder / LOCK, not folder.exists()
    try:
        handle = _locked(path)
    except OSError as error:
        raise InputError(f"--out is {str(out)!r}, which cannot be written: {error.strerror or error}.") from error
    if handle is None:
        raise InputError(
            f"--out is {str(out)!r}, and another fewstep process is writing there: wait for it, or choose another name."
        )
    try:
        yield
    finally:
        _release(path, handle)
        if made:
            with suppress(OSError):
                folder.rmdir()


def _locked(path: Path) -> int | None:
    """Return the locked file, or None if another process has locked it."""
    attempts = 0
    while True:
        try:
            path.parent.mkdir(exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except (FileExistsError, FileNotFoundError):
            attempts += 1
            if attempts == ATTEMPTS:
                raise
            continue  # Another process has just ended, and removed the folder.
        try:
            _lock(handle)
        except OSError as error:
            if error.errno in HELD:
                os.close(handle)
                return None
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)  # What was locked is the file of a process that has just ended.


def _lock(handle: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _release(path: Path, handle: int) -> None:
    """Remove the file while it is locked, so that nobody locks one that is gone; Windows removes none that is open."""
    if sys.platform != "win32":
        path.unlink(missing_ok=True)
    os.close(handle)
    if sys.platform == "win32":
        with suppress(OSError):
            path.unlink()

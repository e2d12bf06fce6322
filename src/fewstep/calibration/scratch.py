"""Scratch memory that may be as large as the noises: temporary files, which the system caches."""

from __future__ import annotations

import math
import os
import tempfile

import torch
from torch import Tensor

from fewstep.errors import InputError

__all__ = ["scratch"]

CHUNK = 2**24


def scratch(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a tensor of zeros on the host that lives in a temporary file (``TMPDIR``), gone when it is.

    The space is taken at once, so that a disk that fills up is an error here and no signal later; no file descriptor
    stays open.

    Raises:
        InputError: if there is no room; it says how much is needed, and where.
    """
    count = math.prod(shape)
    nbytes = count * dtype.itemsize
    if not count:
        return torch.empty(shape, dtype=dtype)
    folder = ""
    try:
        folder = tempfile.gettempdir()
        handle, name = tempfile.mkstemp(prefix="fewstep-", dir=folder)
        try:
            try:
                _allocate(handle, nbytes)
            finally:
                os.close(handle)
            return torch.from_file(name, shared=True, size=count, dtype=dtype, device="cpu").view(shape)
        finally:
            os.unlink(name)
    except (OSError, RuntimeError, OverflowError) as error:
        raise InputError(
            f"{nbytes / 2**20:.1f} MiB are needed for temporary files in {folder or 'TMPDIR'!r}, which has no room for "
            f"them ({error}): set TMPDIR to a folder of a larger disk, or take fewer noises."
        ) from error


def _allocate(handle: int, nbytes: int) -> None:
    """Make the file as long as needed, with every byte of it on the disk."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, nbytes)
        return
    zeros = bytes(CHUNK)
    while nbytes > 0:
        nbytes -= os.write(handle, zeros[: min(nbytes, CHUNK)])

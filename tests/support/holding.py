"""Another process that holds a folder."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fewstep.lock import held


def start(folder: Path) -> int:
    """Return the number of a process that holds ``folder`` until it is killed, or for a minute."""
    if not hasattr(os, "fork"):
        pytest.skip("a process cannot be copied here")
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        with held(folder, folder):
            os.write(theirs, b".")
            signal.pause()
        os._exit(1)
    os.close(theirs)
    with os.fdopen(ours, "rb") as stream:
        assert stream.read(1) == b"."
    return child

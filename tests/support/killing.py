"""Running ``fewstep`` in a process that dies at a chosen moment, or whose disk is full."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from fewstep.cli.app import app
from fewstep.cli.generate import shards


def killed_at(words: list[str], folder: Path, event: str, count: int) -> bool:
    """Run a command that kills itself (kill -9) at the ``count``-th ``event`` in ``folder``; return whether it did.

    Args:
        words: the command.
        folder: where it writes.
        event: "open", "os.rename", "os.remove" and the like, as Python audits them, each just before it happens; or
            "batch", after a batch of images was written, whole or not.
        count: from 1 on.
    """

    def arrange() -> None:
        left = count

        def passed(happening: str, arguments: tuple) -> None:
            nonlocal left
            if happening == event and (event == "batch" or str(folder) in str(arguments[0])):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        to_npz = shards.ShardWriter._to_npz

        def written(writer: shards.ShardWriter, name: str, images: object) -> None:
            to_npz(writer, name, images)
            passed("batch", ())

        shards.ShardWriter._to_npz = written
        sys.addaudithook(passed)

    status, printed = _forked(words, arrange)
    assert os.waitstatus_to_exitcode(status) in (-signal.SIGKILL, 0), printed
    return os.WIFSIGNALED(status)


def killed_when(words: list[str], due: Callable[[], bool]) -> bool:
    """Run a command that is killed (kill -9), wherever it is, once ``due()`` holds; return whether it was."""

    def watch() -> None:
        while not due():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    status, printed = _forked(words, threading.Thread(target=watch, daemon=True).start)
    assert os.waitstatus_to_exitcode(status) in (-signal.SIGKILL, 0), printed
    return os.WIFSIGNALED(status)


def with_a_full_disk(words: list[str], most: int) -> tuple[int, str]:
    """Return exit status and output of a command none of whose files may grow beyond ``most`` bytes."""

    resource = pytest.importorskip("resource")

    def arrange() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    status, printed = _forked(words, arrange)
    return os.waitstatus_to_exitcode(status), printed


def _forked(words: list[str], arrange: Callable[[], None]) -> tuple[int, str]:
    """Return how a copy of this process ended that ran a command after ``arrange``, and what it printed or raised."""
    if not hasattr(os, "fork"):
        pytest.skip("a process cannot be copied here")
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            signal.alarm(120)
            os.close(ours)
            torch.set_num_threads(1)
            arrange()
            done = CliRunner().invoke(app, words)
            os.write(theirs, f"{done.output}{done.exception or ''}".encode()[:60_000])
            code = done.exit_code
        finally:
            os._exit(code)
    os.close(theirs)
    with os.fdopen(ours, "rb") as stream:
        printed = stream.read().decode()
    return os.waitpid(child, 0)[1], printed

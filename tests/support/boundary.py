"""What tests of commands from outside share: a short call of each, the answer of one, and what a folder holds."""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import signal
import stat
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.cli.app import run

LIMIT, WAITED = 10, 60
"""Seconds that a refusal may compute, and that it may take on a machine that others use too."""


class TooLong(BaseException):
    """A command computes or waits for too long; nothing that it catches."""


BASES: dict[str, dict[str, str]] = {
    "sample": {"model": "support.generating:tiny", "num": "2", "steps": "2", "out": "out.npz"},
    "grid": {"steps": "3", "grid": "karras", "out": "out.json"},
    "generate": {"model": "support.generating:tiny", "num": "2", "steps": "2", "out": "out"},
    "evaluate": {"images": "images.npz", "reference": "images.npz", "out": "out.json"},
    "compare": {"model": "support.generating:tiny", "num": "2", "steps": "2", "solvers": "ddim", "grids": "karras",
                "metrics": "error", "exact_steps": "10", "out": "out"},
    "calibrate": {"model": "support.generating:tiny", "num": "8", "steps": "2", "reference_steps": "8",
                  "objective": "local", "out": "out.json"},
    "tune": {"model": "support.generating:tiny", "calls": "2", "budget": "60", "pictures": "0", "out": "out.json"},
    "reproduce": {"table": "sa-solver-cifar10", "weights": "folder", "out": "out"},
    "doctor": {"model": "pipeline", "steps": "2"},
    "skip diagnose": {"model": "support.generating:counted_unet", "data": "small.npz", "num": "2", "levels": "2",
                      "inversion_steps": "2", "out": "out"},
    "skip search": {"model": "support.generating:counted_unet", "metric": "feature-loss", "data": "small.npz",
                    "features": "torchscript:features.pt", "num": "2", "points": "2", "steps": "2", "out": "out.json"},
}  # fmt: skip
"""A short call of each command."""
POSITIONAL = {"evaluate": "images", "reproduce": "table", "doctor": "model", "tune": "model"}


@dataclass(frozen=True)
class Answer:
    """What a command answered: its exit code, its standard error, an exception that it let out, and its output."""

    code: int
    err: str
    error: str | None
    out: str = ""

    def complaints(self, what: str) -> list[str]:
        """Return what is wrong with it: anything but being done, or exit code 2 with one line."""
        if self.error is not None:
            return [f"{what}: {self.error}"]
        if self.code not in (0, 2):
            return [f"{what}: exit code {self.code}"]
        lines = [line for line in self.err.splitlines() if line.strip()]
        boxed = any("─ Error ─" in line or "Usage:" in line for line in lines)  # typer's own words about options
        if self.code == 2 and not boxed and len(lines) != 1:
            return [f"{what}: {len(lines)} lines: {self.err[:150]!r}"]
        if any(ord(letter) < 32 and letter not in "\n" for letter in self.err):
            return [f"{what}: control characters in {self.err[:150]!r}"]
        return []


@dataclass(frozen=True)
class Tree:
    """The files of a folder with hashes of what is in them."""

    files: dict[str, str]

    def changed(self, folder: Path) -> set[str]:
        """Return the files that are gone or have changed."""
        now = tree(folder).files
        return {name for name, held in self.files.items() if now.get(name) != held}

    def remove_new(self, folder: Path) -> None:
        """Remove what is new in the folder."""
        for path in sorted(folder.rglob("*"), reverse=True):
            if str(path.relative_to(folder)) not in self.files:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def tree(folder: Path) -> Tree:
    """Return what a folder holds now."""
    found = {}
    for path in sorted(folder.rglob("*")):
        regular = stat.S_ISREG(path.lstat().st_mode)
        found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest() if regular else "other"
    return Tree(found)


def called(*words: str) -> Answer:
    """Run a command in this process."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")

    def stop(*_: Any) -> None:
        raise TooLong

    before, argv = {number: signal.signal(number, stop) for number in (signal.SIGALRM, signal.SIGPROF)}, sys.argv
    code, error = 0, None
    sys.argv = ["fewstep", *words]
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    signal.alarm(WAITED)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException as raised:
        error = f"{type(raised).__name__}: {str(raised)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.argv = argv
    for stream in (out, err):
        stream.flush()
    texts = (stream.buffer.getvalue().decode("utf-8", "replace") for stream in (err, out))
    return Answer(code, next(texts), error, next(texts))


def line(name: str, **changed: str | None) -> list[str]:
    """Return the words of a command with some options changed."""
    chosen = {**BASES[name], **changed}
    positional = POSITIONAL.get(name)
    arguments = [str(chosen.pop(positional))] if positional in chosen else []
    options = [f"--{key.rstrip('_').replace('_', '-')}={value}" for key, value in chosen.items() if value is not None]
    return [*name.split(), *options, *(["--", *arguments] if arguments else [])]

"""What tests of commands from outside share: the answer of a command, and what a folder held before."""

from __future__ import annotations

import hashlib
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Answer:
    """What a command answered: its exit code, its standard error, and an exception that it let out."""

    code: int
    err: str
    error: str | None

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

"""What a killed run leaves half-written: told by its name."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["UNFINISHED", "remove_leftovers"]

UNFINISHED = ".fewstep-"
"""How the names of files and folders begin that are not whole yet."""


def remove_leftovers(folder: Path) -> None:
    """Remove what killed runs left in a folder that no other run writes in."""
    for path in folder.glob(f"{UNFINISHED}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

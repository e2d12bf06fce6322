"""The files that a table needs: what is there, what is the published one, and where the rest is downloaded from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fewstep.errors import InputError
from fewstep.storage import check_readable

__all__ = ["Wanted", "checked_files", "sha256_of"]

BLOCK = 1 << 20
NAMED_HASH = re.compile(r"-([0-9a-f]{8,64})\.[A-Za-z0-9]+$")
"""The first digits of a file's SHA-256 in its name, as torch's hub writes them."""


@dataclass(frozen=True)
class Wanted:
    """A file that is needed.

    Attributes:
        path: where it is looked for.
        url: where it is downloaded from.
        sha256: its published hash, or the first digits of it; None where there is none.
    """

    path: Path
    url: str
    sha256: str | None = None

    @property
    def is_there(self) -> bool:
        """Whether there is a file."""
        return self.path.is_file()


def checked_files(wanted: Sequence[Wanted]) -> dict[str, str]:
    """Return the SHA-256 of each file by its name, in hexadecimal digits.

    Raises:
        InputError: if one is missing (it says where all that are missing are from), cannot be read, or is not the
            published one.
    """
    missing = [file for file in wanted if not file.is_there]
    if missing:
        from_where = "; ".join(f"{str(file.path)!r} from {file.url}" for file in missing)
        raise InputError(f"{len(missing)} of {len(wanted)} files are missing: download {from_where}.")
    found = {}
    for file in wanted:
        found[file.path.name] = made = sha256_of(file.path)
        published = file.sha256 or _in_its_name(file.path)
        if published is not None and not made.startswith(published):
            raise InputError(
                f"{str(file.path)!r} is not the published file: its SHA-256 is {made[: len(published)]}, not "
                f"{published}; download it again from {file.url}."
            )
    return found


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits.

    Raises:
        InputError: if it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with check_readable(path, "the file").open("rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error
    return digest.hexdigest()


def _in_its_name(path: Path) -> str | None:
    match = NAMED_HASH.search(path.name)
    return match[1] if match else None

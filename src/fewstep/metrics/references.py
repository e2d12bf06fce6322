"""References for comparison: statistics, or images measured once and then cached."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from importlib import resources
from pathlib import Path

import torch

from fewstep.errors import InputError
from fewstep.metrics.extractor import EMBEDDED, Extractor, file_hash, reference
from fewstep.metrics.images import ARRAYS, check_path, image_batches, npz_names
from fewstep.metrics.statistics import FeatureStatistics, summarised

__all__ = ["reference_hash", "reference_summary", "refuse_other_features"]

LAYOUT = 2
"""Version of the layout of the cache's entries; entries of another version are left alone."""


def reference_summary(name: str, extractor: Extractor, batch_size: int = 256) -> FeatureStatistics:
    """Return the summary of a reference: images (measured once, then cached), statistics, or an embedded name.

    The cache lies in ``$FEWSTEP_CACHE``, else ``~/.cache/fewstep``; its key is the hash of the images and of the
    features, so that neither can change unseen. A damaged entry is made anew.

    Args:
        name: "fashion-mnist" (moments of its training images), an npz of images or statistics, or a folder.
        extractor: the features.
        batch_size: images at a time.

    Raises:
        InputError: if there is no such reference, its images cannot be read, or its statistics are of other features.
    """
    path = _existing(name)
    if path is None or (path.suffix == ".npz" and path.is_file() and _holds_moments(path)):
        held = FeatureStatistics(reference(name), torch.zeros(0, 0)) if path is None else FeatureStatistics.load(path)
        refuse_other_features(held, extractor)
        return held
    cached = _cache() / f"{reference_hash(name)}-{extractor.hash}-{LAYOUT}.npz"
    if cached.is_file():
        try:
            found = FeatureStatistics.load(cached)
            if found.moments.features == extractor.tag:
                return found
        except InputError:
            cached.unlink(missing_ok=True)
    made = summarised(image_batches(path, batch_size), extractor)
    _keep(made, cached)
    return made


def _holds_moments(path: Path) -> bool:
    """Whether an npz has statistics; where it has images too, these are what is read."""
    names = npz_names(path)
    return bool({"mean", "mu"} & names) and not names.intersection(ARRAYS)


def reference_hash(name: str) -> str:
    """Return 16 hexadecimal digits of a SHA-256: of a file's content, or of a folder's file names and contents.

    Raises:
        InputError: if there is no such reference, or it cannot be read.
    """
    path = _existing(name)
    if path is None:
        with resources.as_file(resources.files("fewstep.metrics") / "fashion_mnist" / "statistics.npz") as statistics:
            return file_hash(statistics)
    if path.is_file():
        return file_hash(path)
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path)} {file_hash(file)};".encode())
    return digest.hexdigest()[:16]


def refuse_other_features(held: FeatureStatistics, extractor: Extractor) -> None:
    """Check that a reference was measured in these features, or in unknown ones.

    Raises:
        InputError: if it was measured in others.
    """
    if held.moments.features not in ("", extractor.tag):
        raise InputError(
            f"the reference has the features {held.moments.features!r}, not {extractor.tag!r}: "
            "give images (--reference data.npz or a folder), or statistics of the same features."
        )


def _existing(name: str) -> Path | None:
    """Return the path of a reference, None for the embedded one."""
    if name == EMBEDDED:
        return None
    path = Path(name)
    check_path(path)
    return path


def _cache() -> Path:
    if given := os.environ.get("FEWSTEP_CACHE"):
        return Path(given)
    try:
        return Path.home() / ".cache" / "fewstep"
    except RuntimeError:  # A user without an entry in passwd and without $HOME has no cache: nothing can be kept here.
        return Path(os.devnull) / "fewstep"


def _keep(summary: FeatureStatistics, path: Path) -> None:
    """Write the cache's entry whole; a cache that cannot be written is none."""
    with suppress(OSError, InputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        summary.save(path)

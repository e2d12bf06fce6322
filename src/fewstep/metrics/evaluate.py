"""From images on disk to numbers, with reference statistics that are made once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewstep.errors import InputError, unknown_name
from fewstep.metrics.extractor import EMBEDDED, Extractor, file_hash, reference
from fewstep.metrics.frechet import frechet_distance
from fewstep.metrics.images import image_batches, npz_names
from fewstep.metrics.neighbours import kid, mmd, prdc
from fewstep.metrics.summary import Summary, summarised

__all__ = ["METRICS", "checked_metrics", "evaluate", "reference_summary"]

METRICS = {
    "fd": "Fréchet distance (with Inception's features: FID)",
    "kid": "kernel inception distance, mean and deviation over subsets",
    "prdc": "precision, recall, density and coverage",
    "mmd": "maximum mean discrepancy with a Gaussian kernel",
}


def checked_metrics(names: Sequence[str]) -> list[str]:
    """Return the names, if each is one of ``METRICS``.

    Raises:
        InputError: with the nearest match.
    """
    for name in names:
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
    if not names:
        raise InputError(f"no metric is asked for: choose among {', '.join(METRICS)}.")
    return list(dict.fromkeys(names))


def evaluate(
    images: Path, against: Summary, extractor: Extractor, metrics: Sequence[str] = ("fd",), batch_size: int = 256
) -> dict[str, Any]:
    """Return the metrics of the images at a path, with what is needed to tell what was measured.

    Args:
        images: an npz, a folder of ``fewstep generate``, or a folder of pictures.
        against: the reference, as ``reference_summary`` makes it.
        extractor: the features, the same that the reference has.
        metrics: some of ``METRICS``.
        batch_size: images at a time; memory does not grow with their number.

    Raises:
        InputError: if the images cannot be read, a metric is unknown, or the reference has other features, or only
            moments where a metric needs the features themselves.
    """
    wanted = checked_metrics(metrics)
    if against.moments.features not in ("", extractor.tag):
        raise InputError(
            f"the reference has the features {against.moments.features!r}, not {extractor.tag!r}: "
            "make its statistics with the same ones."
        )
    if not len(against.sample) and wanted != ["fd"]:
        raise InputError(
            f"the reference holds moments alone, which are enough for fd but not for {', '.join(wanted)}: "
            "give the images themselves, --reference data.npz or a folder."
        )
    own = summarised(image_batches(images, batch_size), extractor)
    values: dict[str, Any] = {}
    for name in wanted:
        if name == "fd":
            values["fd"] = frechet_distance(own.moments, against.moments)
        elif name == "kid":
            values["kid"], values["kid_deviation"] = kid(own.sample, against.sample)
        elif name == "mmd":
            values["mmd"] = mmd(own.sample, against.sample)
        else:
            values |= prdc(own.sample, against.sample)
    return {
        "metrics": values,
        "images": own.moments.count,
        "reference_images": against.moments.count,
        "features": extractor.tag,
    }


def reference_summary(name: str, extractor: Extractor, batch_size: int = 256) -> Summary:
    """Return the summary of a reference: images (measured once, then cached), statistics, or an embedded name.

    The cache lies in ``$FEWSTEP_CACHE``, else ``~/.cache/fewstep``; its key is the hash of the images and of the
    features, so that neither can change unseen. A damaged entry is made anew.

    Args:
        name: "fashion-mnist" (moments of its training images), an npz of images or statistics, or a folder.
        extractor: the features.
        batch_size: images at a time.

    Raises:
        InputError: if there is no such reference, or its images cannot be read.
    """
    if name == EMBEDDED:
        return Summary(reference(name), _no_features())
    path = Path(name)
    if not path.exists():
        raise InputError(f"the reference {name!r} does not exist: give an .npz, a folder of images, or {EMBEDDED!r}.")
    if path.is_file() and path.suffix == ".npz" and {"mean", "mu"} & npz_names(path):
        return Summary.load(path)
    cached = _cache() / f"{_identity(path)}-{extractor.hash}.npz"
    if cached.is_file():
        try:
            found = Summary.load(cached)
            if found.moments.features == extractor.tag:
                return found
        except InputError:
            cached.unlink(missing_ok=True)
    made = summarised(image_batches(path, batch_size), extractor)
    _keep(made, cached)
    return made


def _no_features() -> Any:
    import torch

    return torch.zeros(0, 0)


def _cache() -> Path:
    return Path(os.environ.get("FEWSTEP_CACHE") or Path.home() / ".cache" / "fewstep")


def _identity(path: Path) -> str:
    """Return a hash of a file's content; of a folder's file names, sizes and times."""
    if path.is_file():
        return file_hash(path)
    digest = hashlib.sha256(str(path.resolve()).encode())
    for file in sorted(path.iterdir()):
        digest.update(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns};".encode())
    return digest.hexdigest()[:16]


def _keep(summary: Summary, path: Path) -> None:
    """Write the cache's entry whole; a cache that cannot be written is none."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        summary.save(part)
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)

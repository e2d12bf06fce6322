"""The evaluation of images on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fewstep.errors import InputError, unknown_name
from fewstep.metrics.extractor import Extractor
from fewstep.metrics.frechet import frechet_distance
from fewstep.metrics.images import image_batches
from fewstep.metrics.inception_score import inception_score
from fewstep.metrics.neighbours import cmmd, kid, mmd, prdc
from fewstep.metrics.references import refuse_other_features
from fewstep.metrics.statistics import FeatureStatistics, summarised

__all__ = ["METRICS", "checked_metrics", "evaluate"]

METRICS = {
    "fd": "Fréchet distance (with Inception's features: FID)",
    "kid": "kernel inception distance, mean and deviation over subsets",
    "prdc": "precision, recall, density and coverage",
    "mmd": "maximum mean discrepancy with a Gaussian kernel",
    "cmmd": "that of CLIP's authors, with a wide kernel on features of unit length",
    "is": "inception score, mean and deviation over ten parts",
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
        raise InputError(f"no metric is given: choose among {', '.join(METRICS)}.")
    return list(dict.fromkeys(names))


def evaluate(
    images: Path,
    against: FeatureStatistics,
    extractor: Extractor,
    metrics: Sequence[str] = ("fd",),
    batch_size: int = 256,
) -> dict[str, Any]:
    """Return the metrics of the images at a path, with what is needed to tell what was measured.

    Args:
        images: an npz, a folder of ``fewstep generate``, or a folder of pictures.
        against: the reference, as ``reference_summary`` makes it.
        extractor: the features, the same that the reference has; all but the Fréchet distance is computed on its
            device.
        metrics: some of ``METRICS``.
        batch_size: images at a time; memory does not grow with their number.

    Returns:
        The values under "metrics", "images" and "reference_images" (their numbers; None where statistics of others do
        not tell) and "features" (name and hash).

    Raises:
        InputError: if the images cannot be read, a metric is unknown, or the reference has other features, or only
            moments where a metric needs the features themselves.
    """
    wanted = checked_metrics(metrics)
    refuse_other_features(against, extractor)
    needing = [name for name in wanted if name not in ("fd", "is")]
    if not len(against.sample) and needing:
        raise InputError(
            f"the reference holds moments alone, which are enough for fd but not for {', '.join(needing)}: "
            "give the images themselves, --reference data.npz or a folder."
        )
    if "is" in wanted and extractor.head is None:
        raise InputError(
            f"is needs logits of classes, and the features {extractor.name!r} have none: take fashion-mnist, "
            "inception:FILE with its last layer, or a TorchScript module with a method head."
        )
    measured = summarised(image_batches(images, batch_size), extractor)
    values: dict[str, Any] = {}
    sample = measured.sample.to(extractor.device)
    for name in wanted:
        if name == "fd":
            values["fd"] = frechet_distance(measured.moments, against.moments)
        elif name == "kid":
            values["kid"], values["kid_deviation"] = kid(sample, against.sample)
        elif name in ("mmd", "cmmd"):
            values[name] = {"mmd": mmd, "cmmd": cmmd}[name](sample, against.sample)
        elif name == "is":
            assert extractor.head is not None
            with torch.no_grad():
                values["is"], values["is_deviation"] = inception_score(extractor.head(sample))
        else:
            values |= prdc(sample, against.sample)
    return {
        "metrics": values,
        "images": measured.moments.count,
        "reference_images": against.moments.count if against.moments.features else None,
        "features": extractor.tag,
    }

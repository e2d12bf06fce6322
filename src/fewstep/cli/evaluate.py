"""``fewstep evaluate``: the distance of a set of images to a reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import typer
from rich.progress import TextColumn, TimeElapsedColumn
from torch import Tensor

from fewstep.cli.settings.evaluate import EvaluateSettings
from fewstep.cli.settings.options import names
from fewstep.cli.shared.features import few_images, needed_features
from fewstep.cli.shared.manifest import versions
from fewstep.cli.shared.models import check_device
from fewstep.cli.shared.progress import bar
from fewstep.metrics import Extractor
from fewstep.metrics.evaluate import checked_metrics
from fewstep.metrics.evaluate import evaluate as measured
from fewstep.metrics.references import reference_hash, reference_summary
from fewstep.storage import write_json

__all__ = ["evaluate"]

UNKNOWN = "unknown"
"""The features of statistics that do not say theirs."""


def evaluate(settings: EvaluateSettings) -> None:
    """Measure images against a reference."""
    wanted = checked_metrics(names(settings.metrics))
    check_device(settings.device)
    extractor = needed_features(settings.features, str(settings.images), "every metric", settings.device)
    with bar(TextColumn("{task.description}"), TextColumn("{task.completed:.0f}"), TimeElapsedColumn()) as progress:
        task = progress.add_task("images of the reference", total=None)
        watched = replace(extractor, network=partial(_watched, extractor, partial(progress.advance, task)))
        against = reference_summary(settings.reference, watched, settings.batch_size)
        progress.update(task, description="images", completed=0)
        result = measured(settings.images, against, watched, wanted, settings.batch_size)
    features = against.moments.features or UNKNOWN
    if settings.out is not None:
        record = {
            **result,
            "path": str(settings.images),
            "reference": settings.reference,
            "reference_hash": reference_hash(settings.reference),
            "reference_features": features,
            "versions": versions(),
        }
        write_json(settings.out, record)
    _show(result, settings.reference, features)
    few = few_images(result["images"], len(against.moments.mean), "the distance")
    if few is not None:
        typer.echo(few)


def _watched(extractor: Extractor, advance: Callable[[int], None], images: Tensor) -> Tensor:
    """Return the features of images, and say how many there were."""
    made = extractor.network(images)
    advance(len(images))
    return made


def _show(result: dict[str, Any], reference: str, features: str) -> None:
    for name, value in result["metrics"].items():
        typer.echo(f"{name:14} {value:.5g}")
    against = f"{result['reference_images']} of {reference}" if result["reference_images"] else reference
    other = "" if features == result["features"] else f" (the reference's are {features})"
    typer.echo(f"{result['images']} images against {against}, features {result['features']}{other}")

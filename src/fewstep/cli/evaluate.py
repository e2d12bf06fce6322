"""``fewstep evaluate``: how near a set of images is to a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fewstep.cli.shared.options import Device

__all__ = ["evaluate"]

UNKNOWN = "unknown"
"""The features of statistics that do not say theirs."""


def evaluate(
    images: Annotated[Path, typer.Argument(help="A folder of fewstep generate or of pictures, or an .npz.")],
    reference: Annotated[
        str, typer.Option(help="What to compare with: an .npz of images or statistics, a folder, or fashion-mnist.")
    ] = "fashion-mnist",
    features: Annotated[
        str, typer.Option(help="fashion-mnist, inception:FILE, dinov2:FOLDER or torchscript:FILE.")
    ] = "fashion-mnist",
    metrics: Annotated[str, typer.Option(help="Some of fd,kid,prdc,mmd.")] = "fd",
    batch_size: Annotated[int, typer.Option(help="Images at a time.")] = 256,
    device: Device = "cpu",
    out: Annotated[Path | None, typer.Option(help="A .json file for the result.")] = None,
) -> None:
    """Measure images against a reference, in features whose name and hash go into the result.

    Example: fewstep evaluate samples --reference fashion_mnist.npz --metrics fd,kid,prdc
    """
    from fewstep import metrics as measuring
    from fewstep.cli.shared.manifest import versions
    from fewstep.cli.shared.models import check_device
    from fewstep.errors import InputError
    from fewstep.metrics.evaluate import checked_metrics
    from fewstep.metrics.evaluate import evaluate as measured
    from fewstep.metrics.references import reference_hash, reference_summary
    from fewstep.storage import write_json

    wanted = checked_metrics([name.strip() for name in metrics.split(",") if name.strip()])
    if batch_size < 1:
        raise InputError(f"--batch-size is {batch_size}: it must be at least 1.")
    if out is not None and (out.suffix != ".json" or not out.absolute().parent.is_dir()):
        raise InputError(f"--out is {str(out)!r}: write a name that ends in .json, in a folder that exists.")
    if not images.exists():
        raise InputError(f"{str(images)!r} does not exist: give an .npz, or a folder of .npz or pictures.")
    check_device(device)
    extractor = measuring.features(features, device)
    against = reference_summary(reference, extractor, batch_size)
    result = measured(images, against, extractor, wanted, batch_size)
    if out is not None:
        record = {
            **result,
            "path": str(images),
            "reference": reference,
            "reference_hash": reference_hash(reference),
            "reference_features": against.moments.features or UNKNOWN,
            "versions": versions(),
        }
        write_json(out, record)
    _show(result, reference, against.moments.features or UNKNOWN)


def _show(result: dict[str, Any], reference: str, features: str) -> None:
    for name, value in result["metrics"].items():
        typer.echo(f"{name:14} {value:.5g}")
    against = f"{result['reference_images']} of {reference}" if result["reference_images"] else reference
    other = "" if features == result["features"] else f" (the reference's are {features})"
    typer.echo(f"{result['images']} images against {against}, features {result['features']}{other}")

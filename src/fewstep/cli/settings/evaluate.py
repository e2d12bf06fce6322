"""The settings of ``fewstep evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewstep.cli.settings.options import Device, at_least, check_json
from fewstep.errors import InputError

__all__ = ["EvaluateSettings"]


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Measure images against a reference, in features whose name and hash go into the result.

    Example: fewstep evaluate samples --reference fashion_mnist.npz --metrics fd,kid,prdc
    """

    images: Annotated[Path, typer.Argument(help="A folder of fewstep generate or of pictures, or an .npz.")]
    reference: Annotated[
        str, typer.Option(help="What to compare with: an .npz of images or statistics, a folder, or fashion-mnist.")
    ] = "fashion-mnist"
    features: Annotated[
        str,
        typer.Option(help="fashion-mnist (of grey images), inception:FILE, dinov2:FOLDER or torchscript:FILE."),
    ] = "fashion-mnist"
    metrics: Annotated[str, typer.Option(help="Some of fd,kid,prdc,mmd,cmmd,is.")] = "fd"
    batch_size: Annotated[int, typer.Option(help="Images at a time.")] = 256
    device: Device = "cpu"
    out: Annotated[Path | None, typer.Option(help="A .json file for the result.")] = None

    def __post_init__(self) -> None:
        at_least(1, batch_size=self.batch_size)
        if self.out is not None:
            check_json(self.out)
        if not self.images.exists():
            raise InputError(f"{str(self.images)!r} does not exist: give an .npz, or a folder of .npz or pictures.")

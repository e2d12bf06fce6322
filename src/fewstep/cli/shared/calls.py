"""``--call``: what a pipeline is called with, beside its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewstep.errors import InputError, MissingPackageError
from fewstep.models.pipeline_denoiser import PROMPTS
from fewstep.processes.spec import literal

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["call_of"]


def call_of(words: Sequence[str], guidance: str | float | None = None) -> dict[str, Any]:
    """Return the settings of ``--call height=512 --call image=photo.png``, in Python's types.

    Values are Python literals, true, false or words; prompts are words whatever they look like; those of names that end
    in "image" are files of pictures.

    Args:
        words: the values of the option.
        guidance: the value of ``--guidance``.

    Raises:
        InputError: if one is no setting, is given twice, or belongs to another option, or a picture cannot be read.
    """
    call: dict[str, Any] = {}
    for word in words:
        name, equals, text = (part.strip() for part in word.partition("="))
        if not equals or not name.isidentifier() or not text:
            raise InputError(f"--call is {word!r}: write what the pipeline is called with as name=value, height=512.")
        if name in call:
            raise InputError(f"--call {name}=… is given twice: leave one of them out.")
        if name == "prompt":
            raise InputError("--call prompt=… is --prompt here: write that, or --prompts FILE.")
        if name == "guidance_scale" and guidance is not None:
            raise InputError("--call guidance_scale=… and --guidance are both given: leave one of them out.")
        call[name] = text if name in PROMPTS else _picture(text) if name.endswith("image") else literal(text)
    return call


def _picture(text: str) -> Image:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackageError("pictures need pillow: pip install 'fewstep[cli]'.") from error
    try:
        with Image.open(Path(text)) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"--call …={text}: the picture cannot be read: {error}.") from error

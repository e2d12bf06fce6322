"""Samples to files: pictures, moving pictures, sounds, or arrays of whatever they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.io import wavfile

from fewstep.errors import InputError, MissingPackageError
from fewstep.metrics.pixels import are_pictures
from fewstep.models.model import Model
from fewstep.storage import check_folder_writable, write_arrays, write_whole

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FILES", "check_kind", "check_writable", "encoded", "picture", "write_samples"]


FILES = {"images": ".png", "videos": ".gif", "audio": ".wav"}
"""The files of single samples, by what they are."""
FRAMES = 16.0
"""Frames a second where nothing says it."""


def check_writable(out: Path) -> Path:
    """Return ``out`` if samples can be written there.

    Raises:
        InputError: if it is none of .png, .gif, .wav, .npz and a folder, its parent is missing or not writable, or a
            folder of this name has something in it.
    """
    if out.suffix not in (*FILES.values(), ".npz", ""):
        raise InputError(
            f"--out is {str(out)!r}: write a name that ends in .png or .npz (.gif for videos, .wav for audio), or a "
            "folder without a dot."
        )
    check_folder_writable(out, "--out")
    if out.is_dir() and (out.suffix or any(out.iterdir())):
        raise InputError(f"--out is {str(out)!r}: a folder of that name exists; choose another or empty it.")
    if out.is_file() and not out.suffix:
        raise InputError(f"--out is {str(out)!r}, which is a file: end the name in .png or .npz, or choose a folder.")
    return out


def check_kind(model: Model, suffix: str, option: str, instead: str) -> None:
    """Refuse files of another kind than the model's samples; a decoder of pictures is tried on one sample of zeros.

    Args:
        model: what is to be sampled.
        suffix: of the files; "" for the kind's own.
        option: what names them, for the message.
        instead: the option to write for numbers.

    Raises:
        InputError: with the kind, or the shape of samples that are no pictures.
    """
    if suffix == ".npz":
        return
    if suffix not in ("", FILES[model.kind]):
        ours = FILES[model.kind]
        raise InputError(f"{option}: the model makes {model.kind}, whose files are {ours}: write that, or {instead}.")
    shape = model.denoiser.shape
    if model.kind != "images" or shape is None:
        return
    if model.decode is not None:
        shape = tuple(model.images(torch.zeros(1, *shape, device=model.denoiser.device)).shape[1:])
    if not are_pictures(shape):
        raise InputError(
            f"the model's samples are {shape}, and no pictures (1×H×W or 3×H×W): write {instead}, which keeps their "
            "numbers."
        )


def write_samples(
    out: Path,
    name: str,
    samples: np.ndarray,
    seeds: list[int],
    labels: Sequence[int] | None = None,
    rate: float | None = None,
) -> None:
    """Write samples as arrays (.npz), as one picture or moving picture of all, or a folder of files named by seed.

    Args:
        out: where.
        name: what they are, as ``Model.kept`` gives it.
        samples: likewise.
        seeds: of the samples.
        labels: their classes.
        rate: frames or values of audio a second.
    """
    if out.suffix == ".npz":
        named = {} if labels is None else {"labels": np.asarray(labels)}
        named |= {} if rate is None or name not in ("videos", "audio") else {"rate": np.asarray(rate)}
        write_arrays(out, {name: samples, "seeds": np.asarray(seeds), **named})
    elif out.suffix == "":
        write_whole(out, lambda path: _save_folder(path, name, samples, seeds, rate))
    elif out.suffix == ".wav":
        write_whole(out, lambda path: path.write_bytes(encoded(name, samples[0], rate)))
    else:
        every = [_sheet(samples[:, i]) for i in range(samples.shape[1])] if name == "videos" else _sheet(samples)
        write_whole(out, lambda path: path.write_bytes(encoded(name, np.asarray(every), rate)))


def encoded(name: str, sample: np.ndarray, rate: float | None = None) -> bytes:
    """Return the file of one sample: PNG of an image, GIF of a video, WAV in float32 of audio.

    Raises:
        InputError: if it is none of them.
    """
    buffer = BytesIO()
    if name == "images":
        picture(sample).save(buffer, format="PNG")
    elif name == "videos":
        first, *further = [picture(frame) for frame in sample]
        frame_time = round(1000.0 / (rate or FRAMES))
        first.save(buffer, format="GIF", save_all=True, append_images=further, duration=frame_time, loop=0)
    elif name == "audio" and rate is not None and sample.ndim <= 2:
        wavfile.write(buffer, round(rate), sample.T)
    else:
        raise InputError(f"samples of shape {sample.shape} have no file of their own: write an .npz.")
    return buffer.getvalue()


def _sheet(images: np.ndarray) -> np.ndarray:
    """Return all images in rows as one array, enlarged by a whole factor to at least 512 pixels."""
    count, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(count))
    sheet = np.full((math.ceil(count / columns) * height, columns * width, channels), 255, dtype=np.uint8)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
    factor = max(1, math.ceil(512 / max(sheet.shape[:2])))
    return sheet.repeat(factor, axis=0).repeat(factor, axis=1)


def picture(image: np.ndarray) -> Image:
    """Return uint8 [H, W, C] as a picture."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackageError("pictures need pillow: pip install 'fewstep[cli]'.") from error
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image[..., :3])


def _save_folder(path: Path, name: str, samples: np.ndarray, seeds: list[int], rate: float | None) -> None:
    path.mkdir()
    for sample, seed in zip(samples, seeds, strict=True):
        (path / f"{seed:06d}{FILES.get(name, '.npz')}").write_bytes(encoded(name, sample, rate))

"""Images of samples as one picture in a data URI."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

import numpy as np

from fewstep.errors import MissingPackageError

__all__ = ["Mosaic", "mosaic"]

LARGEST, SMALL, COLUMNS, GAP = 96, 64, 4, 2
"""Sides in pixels of what is shrunk to, and of what is enlarged twice; images in a row; pixels between them."""


@dataclass(frozen=True)
class Mosaic:
    """A picture of several images, with its size in pixels."""

    uri: str
    width: int
    height: int


def mosaic(images: np.ndarray) -> Mosaic:
    """Return uint8 images [n, H, W, C] in rows of four as one picture, left to right, top to bottom.

    Small images are enlarged by repeating pixels, so that they stay as sharp as they are; large ones are shrunk.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackageError("pictures need pillow: pip install 'fewstep[cli]'.") from error

    tiles = [Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image[..., :3]) for image in images]
    side = max(tiles[0].size)
    if side > LARGEST:
        size = tuple(max(1, round(length * LARGEST / side)) for length in tiles[0].size)
        tiles = [tile.resize((size[0], size[1]), Image.Resampling.LANCZOS) for tile in tiles]
    elif side <= SMALL:
        tiles = [tile.resize((2 * tile.width, 2 * tile.height), Image.Resampling.NEAREST) for tile in tiles]
    width, height = tiles[0].width + GAP, tiles[0].height + GAP
    columns = min(COLUMNS, len(tiles))
    background = 255 if tiles[0].mode == "L" else (255, 255, 255)
    sheet = Image.new(
        tiles[0].mode, (columns * width - GAP, math.ceil(len(tiles) / columns) * height - GAP), background
    )
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * width, i // columns * height))
    kind, settings = ("PNG", {"optimize": True}) if side <= SMALL else ("WEBP", {"quality": 90})
    buffer = io.BytesIO()
    sheet.save(buffer, format=kind, **settings)
    return Mosaic(f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}", *sheet.size)

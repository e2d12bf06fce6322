"""Mosaics: every pixel of small images is there; large ones are shrunk."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from fewstep.report.mosaics import mosaic


def opened(made) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(made.uri.partition(",")[2])))


@pytest.mark.parametrize("channels", [1, 3])
def test_small_images_are_enlarged_and_whole(channels):
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 10, channels), dtype=np.uint8)
    made = mosaic(images)
    pixels = np.asarray(opened(made)).reshape(made.height, made.width, -1)
    assert pixels.shape == (2 * 16 + 2, 4 * 20 + 3 * 2, channels)
    for i, image in enumerate(images):
        top, left = i // 4 * 18, i % 4 * 22
        tile = pixels[top : top + 16, left : left + 20]
        assert (tile == image.repeat(2, 0).repeat(2, 1)).all()


def test_large_images_are_shrunk():
    made = mosaic(np.full((2, 512, 256, 3), 200, np.uint8))
    assert (made.width, made.height) == (2 * 48 + 2, 96) and made.uri.startswith("data:image/webp")
    assert abs(int(np.asarray(opened(made).convert("RGB"))[48, 24, 0]) - 200) < 4

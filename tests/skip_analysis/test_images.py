"""Real images on disk: which are drawn, their classes, and their way into a model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.metrics import from_uint8
from fewstep.skip_analysis.images import chosen_images, fitted


def numbered(count):
    """Images whose pixels are all their number, which is their class too."""
    return np.arange(count, dtype=np.uint8)[:, None, None, None] + np.zeros((count, 4, 4, 1), np.uint8)


def test_images_are_drawn_at_random_with_their_classes(tmp_path):
    np.savez(tmp_path / "data.npz", images=numbered(200), labels=np.arange(200))
    images, labels = chosen_images(tmp_path / "data.npz", 30)
    assert images[:, 0, 0, 0].tolist() == labels.tolist() and len(set(labels.tolist())) == 30
    assert 60 < labels.mean() < 140
    again, _ = chosen_images(tmp_path / "data.npz", 30)
    other, _ = chosen_images(tmp_path / "data.npz", 30, seed=1)
    assert np.array_equal(images, again) and not np.array_equal(images, other)


def test_folders_of_shards_and_of_pictures(tmp_path):
    shards, pictures = tmp_path / "shards", tmp_path / "pictures"
    shards.mkdir()
    pictures.mkdir()
    for i, part in enumerate(np.split(numbered(40), 4)):
        np.savez(shards / f"samples-{i:05d}.npz", images=part, labels=part[:, 0, 0, 0].astype(int))
    for i, image in enumerate(numbered(5)):
        Image.fromarray(image[..., 0]).save(pictures / f"{i}.png")
    images, labels = chosen_images(shards, 20)
    assert images[:, 0, 0, 0].tolist() == labels.tolist()
    images, labels = chosen_images(pictures, 5)
    assert images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4] and labels is None


def test_small_grey_images_get_the_margin_of_the_models():
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    made = fitted(images, (1, 32, 32))
    assert torch.equal(made[:, :, 2:-2, 2:-2], from_uint8(images))
    made[:, :, 2:-2, 2:-2] = -1.0
    assert bool((made == -1.0).all())
    assert torch.equal(fitted(images, None), from_uint8(images))


@pytest.mark.parametrize(
    ("arrays", "num", "message"),
    [
        ({"images": numbered(5)}, 6, "there are 5 images"),
        ({"images": numbered(5)}, 1, "at least 2"),
        ({"images": numbered(5), "labels": np.arange(4)}, 3, "4 labels for 5 images"),
        ({"images": numbered(5), "labels": np.ones(5)}, 3, "write a class number for each"),
        ({"pixels": numbered(5)}, 3, "an array named 'images' is needed"),
    ],
)
def test_mistakes(tmp_path, arrays, num, message):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        chosen_images(tmp_path / "data.npz", num)


def test_another_size_is_refused():
    with pytest.raises(ValueError, match="1×4×4 .* takes 3×32×32"):
        fitted(numbered(2), (3, 32, 32))

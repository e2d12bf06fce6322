"""Sets on disk are read a batch at a time, and what is wrong with one is said in a sentence."""

import numpy as np
import pytest
from PIL import Image

from fewstep.errors import InputError
from fewstep.metrics.images import image_batches


def pixels(count: int, side: int = 6, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, side, side, channels), np.uint8)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", ["images", "train_images", "arr_0"])
def test_an_npz_in_batches(tmp_path, save, name):
    images = pixels(10)
    save(tmp_path / "a.npz", **{"labels": np.arange(10), name: images})
    batches = list(image_batches(tmp_path / "a.npz", 4))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert np.array_equal(np.concatenate(batches), images)


def test_folders_of_shards_and_of_pictures(tmp_path):
    images = pixels(5, channels=3)
    for kind in ("shards", "pictures"):
        (tmp_path / kind).mkdir()
    np.savez(tmp_path / "shards" / "a.npz", images=images[:2])
    np.savez(tmp_path / "shards" / "b.npz", images=images[2:])
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{i}.png")
    for kind in ("shards", "pictures"):
        assert np.array_equal(np.concatenate(list(image_batches(tmp_path / kind, 2))), images)


def damaged(folder, change):
    np.savez_compressed(folder / "a.npz", images=pixels(50))
    data = bytearray((folder / "a.npz").read_bytes())
    (folder / "a.npz").write_bytes(change(data))
    return folder / "a.npz"


def flipped(data: bytearray) -> bytearray:
    data[len(data) // 2] ^= 0xFF
    return data


def picture_folder(folder, sizes):
    for i, size in enumerate(sizes):
        Image.fromarray(pixels(1, size)[0, ..., 0]).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    ("make", "answer"),
    [
        (lambda f: damaged(f, lambda d: d[: len(d) // 2]), "a.npz' is damaged"),
        (lambda f: damaged(f, lambda d: b""), "a.npz' is damaged"),
        (lambda f: damaged(f, flipped), "a.npz' is damaged"),
        (lambda f: f / "missing.npz", "does not exist"),
        (lambda f: f, "no images"),
        (lambda f: picture_folder(f, (6, 7)), "one size is needed"),
        (lambda f: np.savez(f / "a.npz", images=pixels(2) / 255.0) or f, "uint8"),
        (lambda f: np.savez(f / "a.npz", pictures=pixels(2)) or f, "named 'images' is needed"),
        (lambda f: (f / "a.png").write_bytes(b"none") and f, "a.png' is damaged"),
        (lambda f: picture_folder(f, (6,)) / "0.png", "0.png' is not an .npz"),
        (lambda f: Image.fromarray(np.full((6, 6), 999, np.uint16)).save(f / "a.png") or f, "more than 8 bits"),
        (
            lambda f: (f / "manifest.json").write_text('{"format": "fewstep-comparison/1"}') and f,
            "the manifest of",
        ),
        (lambda f: (f / "manifest.json").write_text("[]") and f, "the manifest of"),
        (lambda f: (f / "manifest.json").write_text('{"files": ["a.npz"]}') and f, "1 of 1 files are missing"),
    ],
)
def test_mistakes_are_answered(make, answer, tmp_path):
    with pytest.raises(InputError, match=answer):
        for _ in image_batches(make(tmp_path)):
            pass

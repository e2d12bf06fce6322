"""Images from outside: every one is counted, none is misread, and nothing hangs or fills the memory."""

from __future__ import annotations

import os
import warnings
import zipfile
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep import metrics
from fewstep.errors import InputError
from fewstep.metrics.images import image_batches

PIXELS = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 3), np.uint8)


def read(path):
    return np.concatenate(list(image_batches(path, 4)))


def png(image):
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 1, 16, 16), (2, 16, 16, 4), (2, 16, 16, 2), (2, 3, 16, 4)])
def test_channels_are_one_or_three(tmp_path, shape):
    np.savez(tmp_path / "x.npz", images=np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match=r"\[n, H, W, C\] with C = 1 or 3"):
        read(tmp_path / "x.npz")


def test_the_layout_is_named(tmp_path):
    np.savez(tmp_path / "x.npz", images=PIXELS.transpose(0, 3, 1, 2))
    with pytest.raises(InputError, match=r"look like \[n, C, H, W\]"):
        read(tmp_path / "x.npz")


def test_nested_folders_are_counted(tmp_path):
    for i, image in enumerate(PIXELS):
        folder = tmp_path / f"0000{i % 2}" if i else tmp_path
        folder.mkdir(exist_ok=True)
        (folder / f"{i}.png").write_bytes(png(image))
    assert len(read(tmp_path)) == 6


def test_a_zip_of_pictures_is_read_as_a_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("dataset.json", "{}")
        for i, image in enumerate(PIXELS):
            archive.writestr(f"00000/img{i:08d}.png", png(image))
    np.testing.assert_array_equal(read(tmp_path / "data.zip"), PIXELS)


@pytest.mark.parametrize("suffix", ["gif", "tif", "tiff", "bmp"])
def test_other_pictures_are_read(tmp_path, suffix):
    Image.fromarray(PIXELS[0, ..., 0]).save(tmp_path / f"a.{suffix}")
    assert len(read(tmp_path)) == 1


def test_pictures_beside_an_npz_are_not_left_out(tmp_path):
    np.savez(tmp_path / "x.npz", images=PIXELS)
    (tmp_path / "a.png").write_bytes(png(PIXELS[0]))
    with pytest.raises(InputError, match="which of them are the images"):
        read(tmp_path)


def test_losses_are_warned_of(tmp_path):
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.jpg")
    with pytest.warns(UserWarning, match="1 of 1 pictures may be lossily compressed"):
        read(tmp_path)


def test_what_would_hang_or_fill_the_memory(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match="a pipe or a device"):
        read(tmp_path)
    (tmp_path / "a.png").unlink()
    for name in ("/dev/zero", "/dev/null"):
        with pytest.raises(InputError):
            read(type(tmp_path)(name))
    header = png(PIXELS[0])
    bomb = header[:16] + (60_000).to_bytes(4, "big") * 2 + header[24:]
    (tmp_path / "a.png").write_bytes(bomb)
    with pytest.raises(InputError, match="claims|damaged"):
        read(tmp_path)


def test_frames_are_not_one_picture(tmp_path):
    first, *others = [Image.fromarray(image) for image in PIXELS]
    first.save(tmp_path / "a.gif", save_all=True, append_images=others)
    with pytest.raises(InputError, match="6 frames"):
        read(tmp_path)


def test_fewer_samples_than_features_are_warned_of():
    few, many = torch.randn(5, 8), torch.randn(100, 8)
    with pytest.warns(UserWarning, match="5 samples for 8 features"):
        metrics.frechet_distance(few, many)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.frechet_distance(many, many)


def test_a_covariance_that_is_none_is_an_error(tmp_path):
    np.savez(tmp_path / "bad.npz", mu=np.zeros(3), sigma=-np.eye(3))
    bad = metrics.Moments.load(tmp_path / "bad.npz")
    with pytest.raises(InputError, match="a covariance has the eigenvalue -1"):
        metrics.frechet_distance(bad, torch.randn(100, 3))
    with pytest.raises(InputError, match="a covariance has the eigenvalue -1"):
        metrics.frechet_distance(torch.randn(100, 3), bad)


def test_an_npz_of_images_and_moments_is_read_as_images(tmp_path, monkeypatch):
    from fewstep.metrics.references import reference_summary

    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    grey = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 1), np.uint8)
    np.savez(tmp_path / "both.npz", arr_0=grey, mu=np.zeros(3), sigma=np.eye(3))
    found = reference_summary(str(tmp_path / "both.npz"), metrics.features("fashion-mnist"))
    assert len(found.sample) == 8


@pytest.mark.parametrize("where", ["a file", "beneath a file", "no home"])
def test_a_cache_that_cannot_be_is_none(where, tmp_path, monkeypatch):
    from fewstep.metrics.references import reference_summary

    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "file" / ("x" if where == "beneath a file" else "")))
    if where == "no home":

        def homeless():
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("FEWSTEP_CACHE")
        monkeypatch.setattr(type(tmp_path), "home", homeless)
    grey = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 1), np.uint8)
    np.savez(tmp_path / "images.npz", images=grey)
    for _ in range(2):
        assert len(reference_summary(str(tmp_path / "images.npz"), metrics.features("fashion-mnist")).sample) == 8
    assert (tmp_path / "file").read_text() == "x"

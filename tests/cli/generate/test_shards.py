"""Shards are whole or absent: whatever kills the run, fills the disk or damages a file."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import killing
from support.generating import fewstep, same_files

from fewstep.cli.generate.shards import Shard, ShardWriter
from fewstep.errors import InputError
from fewstep.metrics.images import image_batches


def test_pictures_are_the_shards_samples(tmp_path, entry):
    for kind in ("npz", "png"):
        fewstep("generate", "--model", entry, "--steps", 3, "--num", 5, "--format", kind, "--out", tmp_path / kind)
    (tmp_path / "png" / "00000003.png").unlink()
    fewstep("generate", "--model", entry, "--steps", 3, "--num", 5, "--format", "png", "--out", tmp_path / "png")
    arrays, pictures = (np.concatenate(list(image_batches(tmp_path / kind, 2))) for kind in ("npz", "png"))
    assert np.array_equal(arrays, pictures) and arrays.shape == (5, 4, 4, 1)
    with Image.open(tmp_path / "png" / "00000003.png") as picture:
        assert np.array_equal(np.asarray(picture), arrays[3, ..., 0])


@pytest.mark.parametrize("event", ["open", "os.rename", "os.mkdir", "os.rmdir", "batch"])
def test_a_kill_at_any_step_of_writing_loses_nothing(event, tmp_path, entry):
    """Before each file is opened and each name is changed, and between the batches of a half-written shard."""
    words = ["generate", "--model", entry, "--steps", "3", "--num", "8", "--shard-size", "4", "--batch-size", "2"]
    fewstep(*words, "--out", tmp_path / "whole")
    moments = 0
    while killing.killed_at([*words, "--out", str(tmp_path / f"a{moments}")], tmp_path, event, moments + 1):
        fewstep(*words, "--out", tmp_path / f"a{moments}")
        same_files(tmp_path / "whole", tmp_path / f"a{moments}")
        moments += 1
    assert moments >= {"open": 4, "os.rename": 3, "batch": 4}.get(event, 1)


def test_what_a_killed_run_left_is_removed(tmp_path, entry):
    words = ["generate", "--model", entry, "--steps", 3, "--num", 6, "--out", tmp_path / "a"]
    (tmp_path / "a" / ".fewstep-xyz").mkdir(parents=True)
    fewstep(*words)
    (tmp_path / "a" / ".fewstep-samples-00000.npz.123").write_bytes(b"half")
    fewstep(*words)
    assert sorted(os.listdir(tmp_path / "a")) == ["manifest.json", "samples-00000.npz"]


def test_a_full_disk_leaves_whole_shards(tmp_path, entry, fails, monkeypatch):
    from fewstep.cli.generate import shards

    words = ["generate", "--model", entry, "--steps", 3, "--num", 6, "--shard-size", 2, "--out", tmp_path / "a"]
    real, calls = os.fsync, []

    def full(number: int) -> None:
        calls.append(number)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        real(number)

    monkeypatch.setattr(shards.os, "fsync", full)
    printed = fails(*words)
    assert "No space left" in printed and "2 of 3 shards are whole" in printed
    assert sorted(os.listdir(tmp_path / "a")) == ["manifest.json", "samples-00000.npz", "samples-00001.npz"]
    fewstep(*words)
    assert len(np.concatenate(list(image_batches(tmp_path / "a")))) == 6


def test_a_disk_that_is_full_in_the_middle_of_a_shard_ends_in_a_line(tmp_path, entry):
    words = ["generate", "--model", entry, "--steps", "3", "--num", "1500", "--shard-size", "750", "--batch-size", "50"]
    fewstep(*words, "--out", tmp_path / "whole")
    size = (tmp_path / "whole" / "samples-00000.npz").stat().st_size
    assert size > (tmp_path / "whole" / "manifest.json").stat().st_size + 4096
    status, printed = killing.with_a_full_disk([*words, "--out", str(tmp_path / "a")], size - 2048)
    assert status and "File too large" in printed and "0 of 2 shards are whole; make room" in printed
    assert os.listdir(tmp_path / "a") == ["manifest.json"]
    fewstep(*words, "--out", tmp_path / "a")
    same_files(tmp_path / "whole", tmp_path / "a")


def test_a_full_disk_gives_no_picture_the_name_of_another(tmp_path, entry, fails, monkeypatch):
    words = ["generate", "--model", entry, "--steps", 3, "--num", 8, "--batch-size", 2, "--format", "png", "--out"]
    fewstep(*words, tmp_path / "whole")
    real, calls = Path.write_bytes, []

    def full(path: Path, data: bytes) -> int:
        calls.append(path)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "0 of 1 shards are whole" in fails(*words, tmp_path / "a")
    fewstep(*words, tmp_path / "a")
    for path in (tmp_path / "whole").glob("*.png"):
        assert (tmp_path / "a" / path.name).read_bytes() == path.read_bytes()


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("samples-00001.npz", lambda data: data[:100]),
        ("samples-00001.npz", lambda data: b""),
        ("samples-00001.npz", lambda data: flipped(data, data.index(b"images.npy") + 60)),
        ("samples-00001.npz", lambda data: flipped(data, data.index(b"seeds.npy") + 60)),
        ("samples-00001.npz", lambda data: data.replace(b"seeds.npy", b"sheds.npy")),
        ("00000002.png", lambda data: data[:50]),
        ("00000002.png", lambda data: b""),
        ("00000002.png", lambda data: b"a letter"),
        ("00000002.png", lambda data: flipped(data, data.index(b"IDAT") + 8)),
    ],
)
def test_damaged_shards_are_named(tmp_path, entry, fails, name, damage):
    words = ["generate", "--model", entry, "--steps", 3, "--num", 6, "--shard-size", 2, "--format", name[-3:]]
    words += ["--out", tmp_path / "a"]
    fewstep(*words)
    shard = tmp_path / "a" / name
    shard.write_bytes(damage(shard.read_bytes()))
    printed = fails(*words)
    assert shard.name in printed and "damaged" in printed and "delete it" in printed
    shard.unlink()
    fewstep(*words)
    assert len(np.concatenate(list(image_batches(tmp_path / "a")))) == 6


def test_no_flipped_byte_of_a_shard_goes_unnoticed(tmp_path):
    shard = Shard([3, 5], (tmp_path / "samples-00000.npz",))
    ShardWriter(shard, [1, 0])("images", np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1))
    shard.check([1, 0], (4, 4, 1))
    for labels, size in (([1, 1], None), (None, None), ([1, 0], (4, 4, 3)), ([1, 0], (5, 4, 1))):
        with pytest.raises(InputError, match="damaged or holds other samples"):
            shard.check(labels, size)
    whole, kept = shard.files[0].read_bytes(), np.load(shard.files[0])
    arrays = {name: kept[name] for name in ("images", "seeds", "labels")}
    for place in range(len(whole)):
        shard.files[0].write_bytes(flipped(whole, place))
        try:
            shard.check([1, 0], (4, 4, 1))
        except InputError:
            continue
        read = np.load(shard.files[0])  # The dates in a zip, and their like, are nothing that anyone reads.
        assert all(np.array_equal(read[name], values) for name, values in arrays.items())

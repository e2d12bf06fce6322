"""``fewstep evaluate``: the numbers of the library, references that are made once, mistakes that say what to do."""

import json
import os
import weakref

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fewstep.cli.app import app
from fewstep.errors import InputError
from fewstep.metrics import features, frechet_distance, from_uint8, reference
from fewstep.metrics.inception_score import inception_score
from fewstep.metrics.neighbours import prdc
from fewstep.metrics.references import reference_summary
from fewstep.metrics.statistics import summarised


def pixels(count: int, top: int = 255, side: int = 28) -> np.ndarray:
    return np.random.default_rng(count).integers(0, top, (count, side, side, 1), np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with images, a reference, and a cache of its own."""
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "samples").mkdir()
    np.savez(tmp_path / "samples" / "a.npz", images=pixels(40))
    np.savez(tmp_path / "samples" / "b.npz", images=pixels(30))
    np.savez(tmp_path / "data.npz", train_images=pixels(60, top=120))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(*words: object) -> dict:
    words = ("evaluate", "samples", *words, "--out", "result.json")
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    with open("result.json") as file:
        return json.load(file)


def test_all_metrics_at_once_are_those_of_the_library(folder):
    result = evaluate("--reference", "data.npz", "--metrics", "fd,kid,prdc,mmd,cmmd,is", "--batch-size", 16)
    extractor = features("fashion-mnist")
    own = extractor(from_uint8(np.concatenate([pixels(40), pixels(30)])))
    other = extractor(from_uint8(pixels(60, top=120)))
    values = result["metrics"]
    assert values["fd"] == pytest.approx(frechet_distance(own, other), rel=1e-3)
    assert {name: values[name] for name in ("precision", "recall", "density", "coverage")} == prdc(own, other)
    assert np.isfinite([values["kid"], values["kid_deviation"], values["mmd"], values["cmmd"]]).all()
    sample = summarised([pixels(40), pixels(30)], extractor).sample
    scored = inception_score(extractor.head(sample).detach())
    assert (values["is"], values["is_deviation"]) == pytest.approx(scored, rel=1e-4)
    assert (result["images"], result["reference_images"], result["features"]) == (70, 60, extractor.tag)


class Classes(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(28, 3)
        torch.nn.init.normal_(self.last.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2))


class WithHead(Classes):
    @torch.jit.export
    def head(self, features: torch.Tensor) -> torch.Tensor:
        return self.last(features)


def test_the_inception_score_of_a_module_with_a_head(folder):
    torch.jit.save(torch.jit.script(WithHead()), "head.pt")
    result = evaluate("--reference", "data.npz", "--metrics", "is", "--features", "torchscript:head.pt")
    assert 1.0 <= result["metrics"]["is"] <= 3.0


def test_features_without_classes_have_no_inception_score(folder):
    torch.jit.save(torch.jit.script(Classes()), "plain.pt")
    words = ["evaluate", "samples", "--reference", "data.npz", "--metrics", "is", "--features", "torchscript:plain.pt"]
    with pytest.raises(InputError, match="have none"):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_the_embedded_statistics_are_the_reference_where_none_is_given(folder):
    result = evaluate()
    extractor = features("fashion-mnist")
    own = extractor(from_uint8(np.concatenate([pixels(40), pixels(30)])))
    assert result["metrics"]["fd"] == pytest.approx(frechet_distance(own, reference()), rel=1e-4)


def test_reference_statistics_are_cached_and_checked(folder):
    first = evaluate("--reference", "data.npz")
    (entry,) = (folder / "cache").iterdir()
    written = entry.stat().st_mtime_ns
    assert evaluate("--reference", "data.npz") == first and entry.stat().st_mtime_ns == written
    whole = bytearray(entry.read_bytes())
    for place in range(100, len(whole), len(whole) // 40):
        entry.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        assert reference_summary("data.npz", features("fashion-mnist")).moments.count == 60
    entry.write_bytes(b"damaged")
    assert evaluate("--reference", "data.npz") == first and entry.stat().st_size > 1000
    np.savez(folder / "data.npz", train_images=pixels(50))
    assert evaluate("--reference", "data.npz")["reference_images"] == 50


def test_a_folder_is_told_by_its_contents(folder):
    shard = folder / "real" / "a.npz"
    shard.parent.mkdir()
    np.savez(shard, images=pixels(60, top=120))
    first, times = evaluate("--reference", "real"), (shard.stat().st_atime_ns, shard.stat().st_mtime_ns)
    np.savez(shard, images=pixels(60, top=200))
    os.utime(shard, ns=times)
    assert evaluate("--reference", "real")["metrics"]["fd"] != first["metrics"]["fd"]


def test_the_order_of_the_reference_decides_nothing(folder):
    """PRDC takes as many reference images as there are samples: of a sorted reference, not the first ones."""
    both = np.concatenate([pixels(100, top=60), pixels(100)])
    np.savez(folder / "samples" / "a.npz", images=both[::5])
    (folder / "samples" / "b.npz").unlink()
    mixed = both[np.random.default_rng(0).permutation(200)]
    values = []
    for name, images in (("sorted", both), ("mixed", mixed)):
        np.savez(folder / f"{name}.npz", images=images)
        values.append(evaluate("--reference", f"{name}.npz", "--metrics", "prdc")["metrics"])
    # Shares of 40 samples: each is off by √(¼/40) at most, their differences by √2 of that; three of these.
    assert values[0] == pytest.approx(values[1], abs=3 * (2 * 0.25 / 40) ** 0.5)


def test_statistics_of_others_serve_for_the_distance(folder):
    extractor = features("fashion-mnist")
    other = extractor(from_uint8(pixels(60, top=120))).double().numpy()
    np.savez(folder / "fid.npz", mu=other.mean(0), sigma=np.cov(other, rowvar=False))
    theirs, ours = (evaluate("--reference", name) for name in ("fid.npz", "data.npz"))
    assert theirs["metrics"]["fd"] == pytest.approx(ours["metrics"]["fd"], rel=1e-6)
    assert (theirs["reference_images"], ours["reference_images"]) == (None, 60)
    assert (theirs["reference_features"], ours["reference_features"]) == ("unknown", ours["features"])
    assert len(theirs["reference_hash"]) == 16 and theirs["reference_hash"] != ours["reference_hash"]


def cut(path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def rgb(folder) -> None:
    for path in folder.glob("*.npz"):
        np.savez(path, images=pixels(4).repeat(3, axis=-1))


def statistics(folder, size: int) -> None:
    np.savez(folder / "fid.npz", mu=np.zeros(3), sigma=np.eye(size))


@pytest.mark.parametrize(
    ("spoil", "words", "answer"),
    [
        (None, ["--metrics", "fid"], "unknown metric 'fid'"),
        (None, ["--reference", "missing.npz"], "does not exist"),
        (None, ["--features", "incepton"], "unknown features"),
        (None, ["--device", "cdua"], "write cpu, or cuda on a GPU"),
        (None, ["--metrics", "kid"], "moments alone"),
        (None, ["--out", "result.txt"], "ends in .json"),
        (None, ["--features", "none"], "give --features torchscript:FILE"),
        (lambda f: rgb(f / "samples"), [], "for others give torchscript:FILE"),
        (lambda f: cut(f / "samples" / "b.npz", 900), [], "b.npz' is damaged"),
        (lambda f: cut(f / "samples" / "b.npz", 0), [], "b.npz' is damaged"),
        (lambda f: np.savez(f / "samples" / "b.npz", images=pixels(4, side=30)), [], "one size is needed"),
        (lambda f: np.savez(f / "samples" / "b.npz", images=np.full((4, 28, 28, 1), np.nan)), [], "without NaN"),
        (lambda f: statistics(f, 2), ["--reference", "fid.npz"], "write them anew"),
        (lambda f: statistics(f, 3), ["--reference", "fid.npz"], "dimensions"),
        (lambda f: np.savez(f / "fid.npz", mu=np.ones(2), sigma=np.nan * np.eye(2)), ["--reference", "fid.npz"], "NaN"),
    ],
)
def test_mistakes_are_one_line_and_lose_nothing(spoil, words, answer, folder, fails):
    if spoil:
        spoil(folder)
    before = {path.name: path.read_bytes() for path in (folder / "samples").iterdir()}
    assert answer in fails("evaluate", "samples", *words)
    assert {path.name: path.read_bytes() for path in (folder / "samples").iterdir()} == before
    assert not (folder / "result.json").exists()


def test_the_memory_is_bounded_and_the_choice_does_not_depend_on_the_batch():
    from fewstep.metrics.statistics import summarised

    extractor, images = features("fashion-mnist"), pixels(90)
    one, two = (summarised(np.array_split(images, parts), extractor, kept=20) for parts in (3, 10))
    assert one.sample.shape == (20, 64) and torch.allclose(one.sample, two.sample, atol=1e-5)
    every = extractor(from_uint8(images))
    assert torch.allclose(one.moments.mean, every.double().mean(0), atol=1e-6)


def test_one_batch_of_images_is_in_memory_at_a_time():
    from fewstep.metrics.statistics import summarised

    handed = []

    def batches():
        for _ in range(6):
            batch = pixels(10)
            handed.append(weakref.ref(batch))
            assert [held() is None for held in handed[:-2]] == [True] * len(handed[:-2])
            yield batch

    assert summarised(batches(), features("fashion-mnist")).moments.count == 60


def test_a_full_disk_is_one_line_and_leaves_nothing(folder, fails, monkeypatch):
    def full(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    assert "No space left" in fails("evaluate", "samples", "--out", "result.json")
    assert not (folder / "result.json").exists()

"""``fewstep skip`` and ``--skip``: what is measured, what is written, and one-line answers to mistakes."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import fewstep as fs
from fewstep.calibration import fingerprint
from fewstep.cli.app import app
from fewstep.errors import FewstepError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def fewstep(*words: object) -> str:
    """Run a command in this process and return what it printed; errors are raised."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


MODEL = """
import torch
import fewstep as fs
from diffusers import UNet2DModel

def load(depth=2):
    torch.manual_seed(depth)
    network = UNet2DModel(sample_size=8, block_out_channels=(8,) * depth, norm_num_groups=4, layers_per_block=1,
                          in_channels=1, out_channels=1, down_block_types=("DownBlock2D",) * depth,
                          up_block_types=("UpBlock2D",) * depth)
    return fs.Denoiser(network.eval().requires_grad_(False), fs.processes.EDM(), "edm", shape=(1, 8, 8))

def deeper():
    return load(3)

def other():
    torch.manual_seed(9)
    model = load()
    model.network.conv_out.bias.data += 1
    return model
"""


class Rows(torch.nn.Module):
    def forward(self, images):
        return images.mean((1, 2))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with images of both sizes, features, and models of one's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mymodel", raising=False)
    (tmp_path / "mymodel.py").write_text(MODEL)
    random = np.random.default_rng(0)
    np.savez("clothes.npz", images=random.integers(0, 256, (12, 28, 28, 1), np.uint8), labels=np.arange(12) % 10)
    np.savez("small.npz", images=random.integers(0, 256, (40, 8, 8, 1), np.uint8))
    torch.jit.save(torch.jit.trace(Rows(), torch.zeros(2, 1, 8, 8)), "rows.pt")
    return tmp_path


SMALL = ("--model", "mymodel:load")


def test_the_embedded_model_is_diagnosed(folder):
    printed = fewstep(
        "skip", "diagnose", "--data", "clothes.npz", "--num", 4, "--levels", 2, "--inversion-steps", 2, "--out", "found"
    )
    assert sorted(os.listdir("found")) == ["diagnosis.json", "inversion.png", "losses.png", "ratios.png"]
    for name in ("inversion", "losses", "ratios"):
        with Image.open(f"found/{name}.png") as picture:
            assert min(picture.size) > 200
    record = json.loads((folder / "found" / "diagnosis.json").read_text())
    assert record["format"] == "fewstep-skip-diagnosis/1" and record["settings"]["labels"] is True
    assert record["settings"]["features"].startswith("fashion-mnist@")
    assert len(record["levels"]) == 2 and len(record["ratios"]) == 9
    assert record["ratios"][0]["depth"] == 8 and min(record["ratios"][0]["mean"]) > 0
    for name in ("pixel_loss", "feature_loss"):
        loss = record[name]
        assert np.allclose(loss["relative"], np.array(loss["tuned"]) / loss["untuned"] - 1)
    bands = [record["band_losses"][name]["tuned"] for name in ("LL", "LH", "HL", "HH")]
    assert np.allclose(np.sum(bands, axis=0), record["pixel_loss"]["tuned"])
    assert record["inversion"]["untuned"]["variance"] != record["inversion"]["tuned"]["variance"]
    assert "inverted noise, tuned" in printed and "in features" in printed


def test_the_complexity_over_rho(folder):
    words = ("--num", 4, "--levels", 3, "--diagnostics", "complexity", "--bottom", 0.6, "--out", "found")
    printed = fewstep("skip", "diagnose", *SMALL, "--data", "small.npz", *words)
    assert sorted(os.listdir("found")) == ["complexity.png", "diagnosis.json"]
    record = json.loads((folder / "found" / "diagnosis.json").read_text())
    assert [round(point["rho"], 6) for point in record["complexity"]] == [0.9, 0.8, 0.7, 0.6]
    assert all(len(point["tuned"]) == 3 and min(point["tuned"]) > 0 for point in record["complexity"])
    assert "ρ = 0.6" in printed


def test_one_part_with_other_features_and_a_profile(folder):
    fs.skip.Profile(rho=1.0).save("one.json")
    fewstep(
        "skip",
        "diagnose",
        *SMALL,
        "--data",
        "small.npz",
        "--num",
        4,
        "--levels",
        2,
        "--diagnostics",
        "losses",
        "--features",
        "torchscript:rows.pt",
        "--skip",
        "one.json",
        "--out",
        "found",
    )
    assert sorted(os.listdir("found")) == ["diagnosis.json", "losses.png"]
    record = json.loads((folder / "found" / "diagnosis.json").read_text())
    assert record["feature_loss"]["relative"] == [0.0, 0.0] and "ratios" not in record
    assert record["settings"]["labels"] is False


def searched(*words):
    return fewstep(
        "skip",
        "search",
        *SMALL,
        "--steps",
        2,
        "--grid",
        "karras",
        "--num",
        10,
        "--points",
        3,
        "--features",
        "torchscript:rows.pt",
        *words,
    )


def test_a_search_writes_a_profile_that_loads(folder):
    printed = searched("--reference", "small.npz", "--bottom", "0.5:0.9", "--out", "profile.json")
    assert {"profile.json", "profile.png"} <= set(os.listdir())
    profile = fs.skip.load("profile.json")
    points = profile.origin["points"]
    assert len(points) == 4 and (points[0]["bottom"], points[0]["top"]) == (1.0, 1.0)
    best = min(points, key=lambda point: point["value"])
    assert (profile.bottom, profile.top, profile.skips) == (best["bottom"], best["top"], 4)
    assert [site["depth"] for site in profile.origin["sites"]] == [3, 2, 1, 0]
    model = profile.origin["model"]
    import mymodel

    assert model["name"] == "mymodel:load" and model["fingerprint"] == fingerprint(mymodel.load())
    assert profile.origin["settings"]["steps"] == 2 and profile.origin["settings"]["metric"] == "fd"
    assert f"{best['value']:.5g}" in printed
    tuned = [point["bottom"] for point in points[1:]]
    assert ("a wider --bottom" in printed) == (best["bottom"] in (min(tuned), max(tuned)))
    searched("--reference", "small.npz", "--bottom", "0.5:0.9", "--out", "again.json")
    assert fs.skip.load("again.json") == profile and fs.skip.load("again.json").origin["points"] == points


def test_a_search_by_feature_loss(folder):
    printed = searched(
        "--metric",
        "feature-loss",
        "--data",
        "small.npz",
        "--method",
        "grid",
        "--top",
        "0.9:1.0",
        "--out",
        "profile.json",
    )
    origin = fs.skip.load("profile.json").origin
    assert len(origin["points"]) == 9 and origin["settings"]["data"] == "small.npz"
    assert "feature-loss" in printed


def test_a_search_over_windows_and_tau(folder):
    printed = searched(
        *("--reference", "small.npz", "--method", "grid", "--bottom", "0.6:0.8", "--points", 2),
        *("--solver", "sa:few_step=true", "--tau", "0,1@0.05:1", "--windows", "all,:1,1:", "--out", "profile.json"),
    )
    profile = fs.skip.load("profile.json")
    points = profile.origin["points"]
    assert len(points) == 2 * (1 + 3 * 2) and {point["tau"] for point in points} == {"0", "1@0.05:1"}
    assert {str(point["window"]) for point in points} == {"None", "[None, 1.0]", "[1.0, None]"}
    best = min(points, key=lambda point: point["value"])
    window = best["window"] and tuple(best["window"])
    assert (profile.bottom, profile.sigma_window) == (best["bottom"], window)
    assert f"tau={best['tau']}" in profile.origin["settings"]["solver"]
    assert "τ" in printed.splitlines()[0] and "σ/α" in printed.splitlines()[0]


def test_skips_by_the_number_of_calls(folder):
    sampling = ("sample", *SMALL, "--steps", 9, "--num", 2)
    printed = fewstep(*sampling, "--skip", "auto", "--out", "auto.npz")
    assert "ρ = 0.675 by the rule of arXiv 2402.15170 at 9 calls" in printed
    fewstep(*sampling, "--skip", "0.675", "--out", "said.npz")
    assert np.array_equal(*(np.load(f"{name}.npz")["images"] for name in ("auto", "said")))


def test_samples_with_a_profile(folder):
    sampling = ("sample", *SMALL, "--steps", 2, "--grid", "karras", "--num", 3)
    fewstep(*sampling, "--out", "plain.npz")
    for name, rho in (("one", 1.0), ("half", 0.5)):
        fs.skip.Profile(rho=rho).save(f"{name}.json")
        fewstep(*sampling, "--skip", f"{name}.json", "--out", f"{name}.npz")
    plain, one, half = (np.load(f"{name}.npz")["images"] for name in ("plain", "one", "half"))
    assert np.array_equal(plain, one) and not np.array_equal(plain, half)


def test_a_set_is_of_one_profile(folder):
    generating = ("generate", *SMALL, "--steps", 2, "--grid", "karras", "--num", 3, "--out", "set")
    fs.skip.Profile(0.5).save("half.json")
    fs.skip.Profile(0.6).save("other.json")
    fewstep(*generating, "--skip", "half.json")
    settings = json.loads((folder / "set" / "manifest.json").read_text())["settings"]
    assert settings["skip"]["bottom"] == 0.5
    fewstep("sample", *SMALL, "--steps", 2, "--grid", "karras", "--num", 3, "--skip", "half.json", "--out", "x.npz")
    assert np.array_equal(np.load("set/samples-00000.npz")["images"], np.load("x.npz")["images"])
    assert "all there already" in fewstep(*generating, "--skip", "half.json")
    for words in (("--skip", "other.json"), ()):
        with pytest.raises(FewstepError, match="made with other settings"):
            fewstep(*generating, *words)


def test_samples_with_a_profile_are_those_of_the_library(folder):
    fs.skip.Profile(0.6).save("profile.json")
    fewstep(
        "sample",
        "--steps",
        2,
        "--grid",
        "karras",
        "--num",
        2,
        "--class",
        3,
        "--guidance",
        2,
        "--skip",
        "profile.json",
        "--out",
        "x.npz",
    )
    model = fs.zoo.load("fashion-mnist", guidance_scale=2.0)
    with torch.no_grad(), fs.skip.tuned(model.inner.network, 0.6):
        x_0 = fs.sample(model, fs.UniPC(), fs.grids.karras(model.process, 2), seeds=range(2), cond=3)
    expected = x_0.clamp(-1, 1).add(1).mul(127.5).round().movedim(1, -1).numpy()
    assert np.abs(np.load("x.npz")["images"].astype(int) - expected).max() <= 1


def test_a_profile_of_another_model_is_warned_of(folder):
    searched("--reference", "small.npz", "--out", "profile.json")
    with pytest.warns(UserWarning, match="another model"):
        fewstep(
            "sample",
            "--model",
            "mymodel:other",
            "--steps",
            2,
            "--grid",
            "karras",
            "--num",
            1,
            "--skip",
            "profile.json",
            "--out",
            "x.npz",
        )


def test_a_profile_of_another_number_of_skips_is_refused(folder):
    searched("--reference", "small.npz", "--out", "profile.json")
    with pytest.raises(FewstepError, match="made for a network of 4 skips, this one has 6"):
        fewstep("sample", "--model", "mymodel:deeper", "--skip", "profile.json", "--out", "x.npz")
    assert not os.path.exists("x.npz")


DIAGNOSE = ("diagnose", *SMALL, "--data", "small.npz", "--num", "2", "--levels", "2", "--out", "found")
SEARCH = ("search", *SMALL, "--features", "torchscript:rows.pt", "--num", "2", "--out", "p.json")


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ((*DIAGNOSE, "--data", "missing.npz"), "does not exist"),
        ((*DIAGNOSE, "--data", "clothes.npz"), "the model takes 1×8×8"),
        ((*DIAGNOSE, "--num", "41"), "there are 40 images"),
        ((*DIAGNOSE, "--num", "1"), "--num is 1"),
        ((*DIAGNOSE, "--levels", "1"), "at least 2"),
        ((*DIAGNOSE, "--bottom", "-1"), "at least 0"),
        ((*DIAGNOSE, "--diagnostics", "loses"), "did you mean 'losses'"),
        ((*DIAGNOSE, "--features", "clip"), "unknown features 'clip'"),
        ((*DIAGNOSE, "--features", "fashion-mnist"), "of grey images"),
        ((*DIAGNOSE, "--class", "3"), "has no classes"),
        ((*DIAGNOSE, "--out", "no/such/folder"), "does not exist"),
        ((*DIAGNOSE, "--out", "found.txt"), "without a dot"),
        ((*DIAGNOSE, "--skip", "missing.json"), "cannot be read"),
        ((*SEARCH, "--metric", "fid"), "unknown metric 'fid'"),
        ((*SEARCH, "--metric", "feature-loss"), "needs real images"),
        ((*SEARCH, "--data", "small.npz"), "needs real images"),
        ((*SEARCH, "--bottom", "low"), "write a range"),
        ((*SEARCH, "--bottom", "0.9:0.5"), "low ≤ high"),
        ((*SEARCH, "--method", "gold"), "did you mean 'golden'"),
        ((*SEARCH, "--windows", "2:1"), "write low:high in σ/α"),
        ((*SEARCH, "--windows", "all,high"), "--windows has 'high'"),
        ((*SEARCH, "--tau", "0,1"), "write --solver sa, without tau"),
        ((*SEARCH, "--solver", "sa:tau=0.4", "--tau", "0,1"), "write --solver sa, without tau"),
        ((*SEARCH, "--solver", "sa", "--tau", "0,-1"), "tau is -1"),
        ((*SEARCH, "--tau", "1", "--metric", "feature-loss", "--data", "small.npz"), "it changes samples"),
        ((*SEARCH, "--points", "1"), "points is 1"),
        ((*SEARCH, "--solver", "unicp"), "did you mean 'unipc'"),
        ((*SEARCH, "--features", "none"), "give --features"),
        ((*SEARCH, "--reference", "missing.npz"), "does not exist"),
        ((*SEARCH, "--out", "p.txt"), "ends in .json"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(folder, words, answer, fails):
    before = sorted(os.listdir())
    assert answer in fails("skip", *words)
    assert [name for name in sorted(os.listdir()) if name != "__pycache__"] == before

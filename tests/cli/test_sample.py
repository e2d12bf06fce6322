"""``fewstep sample`` as a person calls it: files, summary, and one-line answers to mistakes."""

import os

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import fewstep as fs
from fewstep.cli.app import app
from fewstep.errors import FewstepError


def fewstep(*words: object) -> str:
    """Run a command in this process and return what it printed; errors are raised."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_picture_of_all_samples(tmp_path):
    out = tmp_path / "samples.png"
    printed = fewstep("sample", "--steps", 3, "--num", 5, "--out", out)
    assert "3 steps, 3 network calls: 5 images" in printed and "images/s" in printed
    with Image.open(out) as picture:
        assert picture.mode == "L" and min(picture.size) >= 300
        assert np.asarray(picture).std() > 10
    assert os.listdir(tmp_path) == ["samples.png"]


def test_the_networks_type_can_be_chosen(tmp_path):
    for dtype in ("float32", "bfloat16"):
        fewstep("sample", "--steps", 2, "--num", 2, "--dtype", dtype, "--out", tmp_path / f"{dtype}.npz")
    full, half = (np.load(tmp_path / f"{dtype}.npz")["images"].astype(int) for dtype in ("float32", "bfloat16"))
    assert not np.array_equal(full, half) and np.abs(full - half).mean() < 3
    with pytest.raises(FewstepError, match="unknown dtype 'half'"):
        fewstep("sample", "--dtype", "half", "--out", tmp_path / "none.npz")
    assert not (tmp_path / "none.npz").exists()


def test_arrays_do_not_depend_on_the_batch(tmp_path):
    for name, size in (("one", 4), ("two", 3)):
        fewstep(
            "sample",
            "--solver",
            "sa:tau=0.5",
            "--steps",
            3,
            "--num",
            4,
            "--seed",
            7,
            "--class",
            7,
            "--guidance",
            2,
            "--batch-size",
            size,
            "--out",
            tmp_path / f"{name}.npz",
        )
    one, two = (np.load(tmp_path / f"{name}.npz") for name in ("one", "two"))
    assert one["seeds"].tolist() == [7, 8, 9, 10] and one["labels"].tolist() == [7] * 4
    assert one["images"].shape == (4, 32, 32, 1) and one["images"].dtype == np.uint8
    assert np.abs(one["images"].astype(int) - two["images"].astype(int)).max() <= 1


@pytest.mark.parametrize(
    "command", [["sample"], ["generate", "--num", 2], ["compare", "--num", 2, "--metrics", "error"]]
)
def test_guidance_towards_nothing_is_refused(command, tmp_path):
    with pytest.raises(FewstepError, match="guidance moves towards a class or a prompt"):
        fewstep(*command, "--guidance", 2, "--class", "none", "--steps", 3, "--out", tmp_path / "out")


def test_guidance_with_settings_says_what_it_costs(tmp_path):
    words = ["sample", "--steps", 3, "--num", 1, "--grid", "uniform_logsnr", "--class", 7]
    words += ["--out", tmp_path / "one.npz"]
    printed = fewstep(*words, "--guidance", "3:interval=0.2:2,rule=apg")
    assert "3 network calls, 4 evaluations with guidance: 1 images" in printed
    assert "3 network calls, 6 evaluations with guidance" in fewstep(*words, "--guidance", 3)
    assert "3 network calls: 1 images" in fewstep(*words)


def test_a_folder_of_pictures(tmp_path):
    fewstep("sample", "--steps", 2, "--num", 3, "--class", "none", "--out", tmp_path / "many")
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == ["000000.png", "000001.png", "000002.png"]


def test_the_catalogue_names_everything():
    printed = fewstep("sample", "--list")
    for name in ("unipc", "sa", "heun", "karras", "uniform_logsnr", "fashion-mnist", "optimized"):
        assert name in printed


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--solver", "unicp"], "did you mean 'unipc'"),
        (["--grid", "karas"], "did you mean 'karras'"),
        (["--model", "fashion-mnits"], "neither an embedded model (fashion-mnist) nor a folder"),
        (["--model", "stable-diffusion-v1-5/stable-diffusion-v1-5"], "give a folder that save_pretrained wrote"),
        (["--device", "cdua"], "write cpu, or cuda on a GPU"),
        (["--steps", 0], "steps is 0"),
        (["--num", 0], "--num is 0"),
        (["--class", 12], "classes 0 to 9"),
        (["--class", "boot"], "'each' or 'none'"),
        (["--guidance", "nan"], "--guidance is 'nan'"),
        (["--guidance", "3:interval=2:0.2"], "--guidance is '3:interval=2:0.2': an interval goes from"),
        (["--guidance", "3:rule=agp"], "did you mean 'apg'"),
        (["--seed", -5], "at least 0"),
        (["--solver", "sa:tau=1@1:0.05"], "lower end first"),
        (["--grid", "missing.json"], "cannot be read"),
        (["--skip", "missing.json"], "cannot be read"),
        (["--skip", "botom=0.8"], "did you mean 'bottom'"),
        (["--out", "missing/folder/x.png"], "does not exist"),
        (["--out", "picture.jpg"], ".png or .npz"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(words, answer, tmp_path, fails, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert answer in fails("sample", "--num", 2, "--steps", 2, *words)
    assert os.listdir(tmp_path) == []


def test_a_grids_file_decides_the_number_of_steps(tmp_path, monkeypatch, fails):
    monkeypatch.chdir(tmp_path)
    grid = fs.grids.karras(fs.processes.VPDiscrete.from_betas(), 3)
    (tmp_path / "grid.json").write_text(grid.to_json())
    assert "on grid.json, 3 steps, 3 network calls: 2 images" in fewstep("sample", "--grid", "grid.json", "--num", 2)
    assert "has 3 steps, not 8: ask for 3, or leave steps out" in fails("sample", "--grid", "grid.json", "--steps", 8)


def test_skips_are_scaled_by_a_number(tmp_path):
    for name, words in (("plain", []), ("one", ["--skip", 1]), ("less", ["--skip", 0.5])):
        fewstep("sample", "--steps", 2, "--num", 1, *words, "--out", tmp_path / f"{name}.npz")
    plain, one, less = (np.load(tmp_path / f"{name}.npz")["images"] for name in ("plain", "one", "less"))
    assert np.array_equal(plain, one) and not np.array_equal(plain, less)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    from fewstep.cli.shared import images

    out = tmp_path / "samples.npz"
    out.write_bytes(b"old")

    def full(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(FewstepError, match="No space left"):
        images.write_samples(out, "images", np.zeros((1, 2, 2, 1), np.uint8), [0])
    assert out.read_bytes() == b"old" and os.listdir(tmp_path) == ["samples.npz"]

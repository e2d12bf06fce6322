"""``fewstep tune``: the recipe and its report, gone on with after kill -9, and shared by two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
from support import killing, text_folder
from typer.testing import CliRunner

import fewstep as fs
from fewstep.cli.app import app
from fewstep.cli.shared.conditions import read_prompts
from fewstep.errors import InputError

TESTS = Path(__file__).parents[2]
SMALL = ["tune", "support.compared:smooth", "--calls", "4", "--budget", "300", "--pictures", "2"]


def fewstep(*words):
    return CliRunner().invoke(app, [*map(str, words)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("tune") / "recipe.json"
    done = fewstep(*SMALL, "--out", out)
    assert done.exit_code == 0, done.output
    return out, done.output


def same(one: Path, other: Path) -> bool:
    recipes = [fs.load_recipe(path) for path in (one, other)]
    return recipes[0].to_json() == recipes[1].to_json()


def test_what_is_written_and_said(whole):
    out, printed = whole
    recipe = fs.load_recipe(out)
    assert recipe.plan.nfe == 4 and recipe.tuning["verdict"]["noises"] >= 2
    assert "unseen noises" in printed and f"--recipe {out}" in printed.replace("\n", " ")
    assert sorted(path.name for path in out.parent.iterdir()) == ["recipe.html", "recipe.json", "recipe.tune"]


def test_the_recipe_samples(whole, tmp_path):
    done = fewstep(
        "sample", "--model", "support.compared:smooth", "--recipe", whole[0], "--num", 2, "--out", tmp_path / "s.png"
    )
    assert done.exit_code == 0, done.output


def test_killed_and_gone_on_with(whole, tmp_path):
    out = tmp_path / "recipe.json"
    words = [*SMALL, "--out", str(out)]
    assert killing.killed_at(words, tmp_path / "recipe.tune", "os.rename", 2)
    journal = tmp_path / "recipe.tune" / "journal.db"
    assert killing.killed_when(words, lambda: _trials(journal) >= 10)
    assert not out.exists()
    assert fewstep(*words).exit_code == 0
    assert same(out, whole[0])


def _trials(journal: Path) -> int:
    import sqlite3

    try:
        with sqlite3.connect(f"file:{journal}?mode=ro", uri=True) as database:
            return database.execute("select count(*) from trials where state = 'COMPLETE'").fetchone()[0]
    except sqlite3.Error:
        return 0


def test_two_processes_share_a_storage(whole, tmp_path):
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "fewstep.cli", *SMALL, "--storage", storage, "--out", tmp_path / f"{i}.json"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    printed = [run.communicate(timeout=240)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], printed
    assert same(tmp_path / "0.json", tmp_path / "1.json") and same(tmp_path / "0.json", whole[0])
    import optuna

    study = optuna.load_study(study_name=None, storage=storage)
    keys = [trial.user_attrs["key"] for trial in study.trials if trial.state.name == "COMPLETE"]
    assert len(keys) == len(set(keys)) > 5


def test_prompts_of_a_folder(tmp_path):
    folder = text_folder.stable_diffusion_xl(tmp_path / "xl")
    (tmp_path / "prompts.txt").write_text("a cat\na dog\na hen\na pig\n")
    out = tmp_path / "recipe.json"
    words = ["--prompts", tmp_path / "prompts.txt", "--calls", 4, "--budget", 160, "--pictures", 2, "--out", out]
    done = fewstep("tune", folder, *words)
    assert done.exit_code == 0, done.output
    recipe = fs.load_recipe(out)
    assert recipe.guidance == 5.0 and recipe.tuning["verdict"]["default"] == "EulerDiscreteScheduler"
    done = fewstep(
        "sample", "--model", folder, "--prompt", "a cat", "--recipe", out, "--num", 1, "--out", tmp_path / "s.png"
    )
    assert done.exit_code == 0, done.output


def test_empty_lines_among_prompts_are_told_of(tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat\n\na dog\n \n")
    with pytest.warns(UserWarning, match="of whose 4 lines 2 are empty: they are left out"):
        assert read_prompts(None, tmp_path / "prompts.txt") == ["a cat", "a dog"]


def test_a_pipeline_without_latents(tmp_path):
    network = diffusers.UNet2DModel(
        sample_size=16, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    pipe = diffusers.ConsistencyModelPipeline(network, diffusers.CMStochasticIterativeScheduler())
    pipe.save_pretrained(tmp_path / "folder")
    done = fewstep("tune", tmp_path / "folder", "--out", tmp_path / "recipe.json")
    assert isinstance(done.exception, InputError) and done.exit_code == 1
    assert not (tmp_path / "recipe.json").exists()


def test_scores_and_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "tune_scores.py").write_text("def bright(samples):\n    return samples.mean((1, 2, 3))\n")
    done = fewstep(*SMALL, "--score", "tune_scores:bright", "--out", "bright.json")
    assert done.exit_code == 0, done.output
    assert fs.load_recipe("bright.json").tuning["objective"] == "score tune_scores:bright"
    pixels = np.random.default_rng(0).integers(0, 255, (80, 28, 28, 1), np.uint8)
    np.savez(tmp_path / "real.npz", pixels)
    words = ["--data", "real.npz", "--features", "fashion-mnist", "--budget", 700, "--out", "real.json"]
    done = fewstep(*SMALL, *words)
    assert done.exit_code == 0, done.output
    verdict = fs.load_recipe("real.json").tuning["verdict"]
    assert verdict["metric"] == "fd" and len(verdict["kid"]) == 2


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--budget", "20"], "budget is 20 network calls, which is too small for one candidate of 4 calls"),
        (["--budget", "soon"], "budget is 'soon': give network calls"),
        (["--storage", "nonsense://x"], "the storage 'nonsense://x' cannot be used"),
        (["--score", "no_such_module:f"], "--score is 'no_such_module:f': No module named 'no_such_module'"),
        (["--score", "bright"], "--score is 'bright': write module:function"),
        (["--score", "math:pi"], "--score is 'math:pi', which is float: name a function of samples"),
        (["--features", "fashion-mnist", "--score", "x:y"], "--features and --score are both given"),
        (["--prompt", "a cat"], "this model takes no prompts"),
        (["--class", "cat"], "--class is 'cat': give the number of a class"),
    ],
)
def test_mistakes_are_one_sentence(words, reason, tmp_path, capfd):
    from fewstep.cli.app import run

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["fewstep", *SMALL, *words, "--out", str(tmp_path / "recipe.json")])
        run()
    error = capfd.readouterr().err
    assert ended.value.code == 2 and reason in error, error
    assert not (tmp_path / "recipe.json").exists()
    if "20" in words:  # Refused before anything is made.
        assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_pipeline(tmp_path):
    (tmp_path / "empty").mkdir()
    done = fewstep("tune", tmp_path / "empty", "--out", tmp_path / "recipe.json")
    assert "which has no model_index.json: give a diffusers pipeline" in str(done.exception)


def test_an_index_of_what_is_tried(whole):
    verdict = json.loads(whole[0].read_text())["calibration"]["tuning"]["verdict"]
    assert set(verdict["default_values"]) >= {"4", "5"}

"""``fewstep compare --skip``: cells with scaled skips, against the solution of the model without."""

import csv
import json
import shlex

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import fewstep as fs
from fewstep.cli.app import app
from fewstep.recipe import load_recipe

SMALL = ["compare", "--grids", "karras", "--num", 3, "--exact-steps", 4, "--metrics", "error", "--class", 3]


def fewstep(*words) -> str:
    done = CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def rows(folder) -> list[dict]:
    return json.loads((folder / "table.json").read_text())["rows"]


def test_a_cell_runs_the_scaled_network_and_the_solution_the_models_own(tmp_path):
    printed = fewstep(*SMALL, "--solvers", "ddim,unipc", "--steps", 2, "--skip", "0.6", "--out", tmp_path)
    model = fs.zoo.load("fashion-mnist")
    exact = fs.sample(
        model, fs.UniPC(), fs.grids.uniform_logsnr(model.process, 4), seeds=range(3), cond=torch.full((3,), 3)
    )
    with fs.skip.tuned(model, 0.6):
        made = fs.sample(model, fs.DDIM(), fs.grids.karras(model.process, 2), seeds=range(3), cond=torch.full((3,), 3))
    row = rows(tmp_path)[0]
    # Values of [−1, 1] in float32, after some tens of layers.
    assert row["error"] == pytest.approx(float((made - exact).square().mean().sqrt()), rel=1e-4)
    assert row["skip"] == "0.6 … 1" and "0.6 … 1" in printed
    assert "0.6 … 1; not in the reference solution" in (tmp_path / "report.html").read_text("utf-8")
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        assert [line["skip"] for line in csv.DictReader(file)] == ["0.6 … 1"] * 2
    solution = (tmp_path / "exact.npy").stat().st_mtime_ns
    fewstep(*SMALL, "--solvers", "ddim", "--steps", 2, "--out", tmp_path)
    (plain,) = rows(tmp_path)
    assert "skip" not in plain and plain["error"] != row["error"] and plain["cell"] != row["cell"]
    assert (tmp_path / "exact.npy").stat().st_mtime_ns == solution


def test_auto_is_by_the_calls_of_each_cell(tmp_path, monkeypatch):
    fewstep(*SMALL, "--solvers", "ddim", "--steps", "1,10", "--skip", "auto", "--out", tmp_path / "t")
    assert [row["skip"] for row in rows(tmp_path / "t")] == ["0.675 … 1", "0.78 … 1"]
    monkeypatch.chdir(tmp_path)
    row = rows(tmp_path / "t")[0]
    fewstep(*shlex.split(row["command"])[1:])
    kept, drawn = np.load(tmp_path / "t" / f"{row['cell']}.npz"), np.load(f"{row['cell']}/samples-00000.npz")
    assert np.array_equal(kept["images"], drawn["images"])


def test_a_recipe_is_measured_with_its_own_profile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fs.calibrate(
        fs.zoo.load("fashion-mnist"), fs.DDIM(), fs.grids.karras(fs.zoo.load("fashion-mnist").process, 2), num=8
    ).save("plain.json")
    recipe = load_recipe("plain.json")
    fs.Recipe(**{**vars(recipe), "skip": json.loads(fs.skip.Profile(0.5).to_json())}).save("tuned.json")
    asked = [*SMALL, "--solvers", "", "--recipes", "plain.json,tuned.json", "--out", "t"]
    fewstep(*asked)
    plain, tuned = rows(tmp_path / "t")
    assert "skip" not in plain and tuned["skip"] == "0.5 … 1" and plain["error"] != tuned["error"]
    fewstep(*asked, "--skip", "0.7")  # stands in place of the recipe's own, as in generate
    assert [row["skip"] for row in rows(tmp_path / "t")] == ["0.7 … 1"] * 2


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--skip", "auto:3"], "write auto alone"),
        (["--skip", "auto=3"], "write auto alone"),
        (["--skip", "much"], "give ρ of the deepest skip"),
        (["--skip", "rho=[0.5,0.6]"], "rho has 2 values"),
        (["--skip", "0.8", "--model", "support.compared:smooth"], "give a torch.nn.Module"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(words, answer, tmp_path, fails):
    assert answer in fails(*SMALL, "--solvers", "ddim", "--steps", 2, "--out", tmp_path / "t", *words)
    assert not list(tmp_path.glob("t/*"))

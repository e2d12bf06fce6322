"""``fewstep calibrate``, and the recipe in the commands that sample."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fewstep.cli.app import app
from fewstep.cli.settings.calibrate import CalibrateSettings
from fewstep.errors import FewstepError
from fewstep.metrics import features, moments_of
from fewstep.recipe import RecipeBook, load_recipe


def fewstep(*words: object) -> str:
    """Run a command in this process and return what it printed; errors are raised."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


MODEL = """
import torch
import fewstep as fs

process = fs.processes.VPLinear()

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(LEVEL), requires_grad=False)
        self.edge = torch.nn.Parameter(torch.linspace(-1, 1, 8)[None, :, None], requires_grad=False)

    def forward(self, x, t, cond=None):
        t = t.view(-1, 1, 1, 1)
        return torch.tanh(self.level * x / (0.2 + t) + self.edge * (1 + 0.3 * torch.sin(5 * t)))

def load():
    return fs.Denoiser(Net(), process, "x0", shape=(1, 8, 8))
"""


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """Two models as module:function."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("mymodel", "othermodel"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "mymodel.py").write_text(MODEL.replace("LEVEL", "0.7"))
    (tmp_path / "othermodel.py").write_text(MODEL.replace("LEVEL", "0.6"))
    return "mymodel:load"


def calibrated(entry, *more):
    return fewstep("calibrate", "--model", entry, "--steps", 3, "--num", 12, "--reference-steps", 30, *more)


def test_a_recipe_is_written_and_used(entry, tmp_path):
    printed = calibrated(entry, "--out", "recipe.json")
    recipe = load_recipe("recipe.json")
    assert f"{recipe.report.gain:.2f} times lower" in printed and "3 network calls" in printed
    assert recipe.report.gain > 1.2
    printed = fewstep("sample", "--model", entry, "--recipe", "recipe.json", "--num", 4, "--out", "x.npz")
    assert "3 network calls: 4 images" in printed
    fewstep(
        "sample",
        "--model",
        entry,
        "--solver",
        "unipc:order=2",
        "--grid",
        "uniform_logsnr",
        "--steps",
        3,
        "--num",
        4,
        "--out",
        "own.npz",
    )
    assert not np.array_equal(np.load("x.npz")["images"], np.load("own.npz")["images"])


def test_a_search_is_written_too(entry):
    calibrated(entry, "--search", "--budget", 2500, "--out", "recipe.json")
    report = load_recipe("recipe.json").report
    assert report.tried and report.settings["search"] is True


def test_generate_and_compare_take_recipes(entry, tmp_path):
    calibrated(entry, "--out", "recipe.json")
    printed = fewstep("generate", "--model", entry, "--recipe", "recipe.json", "--num", 3, "--out", "set")
    assert "recipe.json, " in printed and " 3 network calls" in printed
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert manifest["settings"]["recipe"] == "recipe.json" and "steps" not in manifest["settings"]
    assert manifest["plan"] == load_recipe("recipe.json").plan.to_json()
    own = ("--solvers", "unipc:order=2", "--grids", "uniform_logsnr", "--steps", 3)
    fewstep(
        "compare",
        "--model",
        entry,
        *own,
        "--num",
        16,
        "--metrics",
        "error",
        "--recipes",
        "recipe.json",
        "--out",
        "table",
    )
    rows = json.loads((tmp_path / "table" / "table.json").read_text())["rows"]
    own, fitted = (next(r for r in rows if r["solver"] == name) for name in ("unipc:order=2", "recipe.json"))
    assert fitted["nfe"] == own["nfe"] and fitted["error"] < own["error"]


def test_a_comparison_refuses_recipes_of_another_guidance(entry):
    calibrated(entry, "--out", "recipe.json")
    recipe = load_recipe("recipe.json")
    replace(recipe, guidance=3.0).save("guided.json")
    asked = ["compare", "--model", entry, "--solvers", "", "--num", 4, "--metrics", "error", "--out", "table"]
    with pytest.raises(FewstepError, match="'guided.json' holds the guidance 3.0, the table has 1.0"):
        fewstep(*asked, "--recipes", "guided.json")


def test_another_model_is_warned_of(entry):
    calibrated(entry, "--out", "recipe.json")
    with pytest.warns(UserWarning, match="another model"):
        fewstep("sample", "--model", "othermodel:load", "--recipe", "recipe.json", "--num", 1, "--out", "x.npz")


def test_settings_besides_a_recipe_are_refused(entry):
    calibrated(entry, "--out", "recipe.json")
    for words in (["--solver", "ddim"], ["--grid", "karras"]):
        with pytest.raises(FewstepError, match=f"leave {words[0]} out"):
            fewstep("sample", "--model", entry, "--recipe", "recipe.json", *words)
    with pytest.raises(FewstepError, match="the recipe is of 3 steps, .*: leave steps out"):
        fewstep("sample", "--model", entry, "--recipe", "recipe.json", "--steps", "5")


def test_several_numbers_of_steps_make_a_book_that_all_commands_take(entry, tmp_path):
    settings = ["--num", 12, "--reference-steps", 30, "--objective", "local", "--analytic", 0, "--out", "book.json"]
    fewstep("calibrate", "--model", entry, "--steps", "2-3,5", *settings)
    book = RecipeBook.load("book.json")
    assert book.calls == (2, 3, 5)
    reference = 12 * 30  # It is shared; the rest is each recipe's, whatever was made before it.
    costs = [recipe.report.calls - reference for recipe in book.recipes]
    assert costs == [costs[0] * calls // 2 for calls in book.calls]
    for steps in (2, 5):
        sampled = ["--model", entry, "--recipe", "book.json", "--steps", steps, "--num", 2]
        assert f"{steps} network calls" in fewstep("sample", *sampled, "--out", "x.npz")
    fewstep("generate", *sampled, "--out", "set")
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())["plan"] == book[5].plan.to_json()
    with pytest.raises(FewstepError, match="no recipe of 4 calls: take one of 2, 3, 5"):
        fewstep("sample", "--model", entry, "--recipe", "book.json", "--steps", 4)
    with pytest.raises(FewstepError, match="give the number of network calls as its steps, one of 2, 3, 5"):
        fewstep("sample", "--model", entry, "--recipe", "book.json")
    compared = ["--solvers", "", "--recipes", "book.json", "--metrics", "error", "--num", 4, "--exact-steps", 20]
    fewstep("compare", "--model", entry, *compared, "--out", "table")
    rows = json.loads((tmp_path / "table" / "table.json").read_text())["rows"]
    assert [row["nfe"] for row in rows] == [2, 3, 5] and "--recipe book.json --steps 3" in rows[1]["command"]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--steps", "5-3"], "a range rises, write 3-5"),
        (["--steps", "²"], "give whole numbers of at least 1, as 6, 4-12 or 4,6,8"),
        (["--budget", 100], "--budget is when --search begins nothing new"),
    ],
)
def test_settings_that_do_nothing_are_refused(entry, words, answer):
    with pytest.raises(FewstepError, match=answer):
        fewstep("calibrate", "--model", entry, "--out", "r.json", *words)


def test_features_of_the_samples_can_be_what_is_fitted(entry, tmp_path):
    class Rows(torch.nn.Module):
        def forward(self, x):
            return x.mean(dim=(1, 3))

    torch.jit.script(Rows()).save(str(tmp_path / "rows.pt"))
    asked = ["--objective", "features", "--features", "torchscript:rows.pt", "--analytic", 0]
    assert "RMSE of features to the reference" in calibrated(entry, *asked, "--out", "recipe.json")
    report = load_recipe("recipe.json").report
    assert report.gain > 1.2 and report.settings["features"].startswith("torchscript")
    with pytest.raises(FewstepError, match="none are known for 'mymodel:load'"):
        calibrated(entry, "--objective", "features", "--out", "other.json")
    with pytest.raises(FewstepError, match="those of --objective features"):
        calibrated(entry, *asked[2:], "--out", "other.json")


def test_the_distribution_of_features_can_be_what_is_fitted(entry, tmp_path):
    class Rows(torch.nn.Module):
        def forward(self, x):
            return x.mean(dim=(1, 3))

    torch.jit.script(Rows()).save(str(tmp_path / "rows.pt"))
    extractor = features("torchscript:rows.pt")
    images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    moments_of(extractor(images), extractor.tag).save(tmp_path / "real.npz")
    asked = ["--objective", "distribution", "--features", "torchscript:rows.pt", "--analytic", 0]
    assert "Fréchet distance to the solution" in calibrated(entry, *asked, "--out", "recipe.json")
    assert "Fréchet distance to the target" in calibrated(entry, *asked, "--target", "real.npz", "--out", "other.json")
    assert load_recipe("other.json").report.settings["target"] == extractor.tag
    noisy = ["--solver", "sa:predictor_order=2,corrector_order=2,few_step=True,tau=0.5"]
    told = calibrated(entry, *asked, *noisy, "--target", "real.npz", "--out", "noisy.json")
    assert "Fréchet distance to the target" in told and load_recipe("noisy.json").plan.stochastic
    with pytest.raises(FewstepError, match="--target real.npz is that of --objective distribution"):
        calibrated(entry, "--target", "real.npz", "--out", "other.json")
    with pytest.raises(FewstepError, match="'absent.npz' does not exist"):
        calibrated(entry, *asked, "--target", "absent.npz", "--out", "other.json")


@pytest.mark.parametrize("steps", ["0", "4-", "few", ""])
def test_numbers_of_steps_that_are_none_are_refused(steps):
    with pytest.raises(FewstepError, match="give whole numbers of at least 1, as 6, 4-12 or 4,6,8"):
        CalibrateSettings(out=Path("r.json"), steps=steps)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--solver", "sa:tau=1.0", "--out", "r.json"], "adds noise"),
        (["--num", 4, "--out", "r.json"], "num is 4"),
        (["--out", "r.txt"], "ends in .json"),
        (["--out", "no/such/r.json"], "does not exist; make it first"),
        (["--solver", "unicp", "--out", "r.json"], "did you mean 'unipc'"),
        (["--objective", "finale", "--out", "r.json"], "did you mean 'final'"),
    ],
)
def test_mistakes_are_answered_and_write_nothing(entry, tmp_path, words, answer):
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(FewstepError, match=answer):
        fewstep("calibrate", "--model", entry, "--steps", 3, *words)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == before


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("--num", 4), "num is 4"),
        (("--reference-steps", 5), "reference_steps is 5"),
        (("--objective", "best"), "unknown objective 'best'"),
        (("--analytic", "some"), "analytic is 'some'"),
        (("--loss", "cube"), "unknown loss 'cube'"),
    ],
)
def test_mistakes_are_found_before_the_model_is_loaded(words, answer, tmp_path):
    command = ["calibrate", "--model", "there:is_none", "--steps", 3, *words, "--out", tmp_path / "recipe.json"]
    with pytest.raises(FewstepError, match=answer):
        CliRunner().invoke(app, [*map(str, command)], catch_exceptions=False)


def test_a_recipe_of_another_process_is_refused(entry, tmp_path):
    calibrated(entry, "--out", "recipe.json")
    data = json.loads((tmp_path / "recipe.json").read_text())
    data["process"]["beta_max"] = 19.0
    (tmp_path / "other.json").write_text(json.dumps(data))
    with pytest.raises(FewstepError, match="was calibrated for"):
        fewstep("sample", "--model", entry, "--recipe", "other.json")


def test_the_tensors_of_a_recipe_are_those_of_the_library(entry):
    import fewstep as fs
    from fewstep.models.loading import load_entry

    calibrated(entry, "--out", "recipe.json")
    model = load_entry(entry).denoiser
    grid = fs.grids.uniform_logsnr(model.process, 3)
    recipe = fs.calibrate(model, fs.UniPC(2), grid, num=12, reference_steps=30)
    assert torch.equal(recipe.plan.history_weights, load_recipe("recipe.json").plan.history_weights)

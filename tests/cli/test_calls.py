"""``--call``: what a pipeline is called with, on the command line."""

from __future__ import annotations

import json

import diffusers
import numpy as np
import pytest
from PIL import Image
from support import text_folder
from typer.testing import CliRunner

from fewstep.cli.app import app
from fewstep.cli.command import spelled
from fewstep.cli.settings.tune import TuneSettings
from fewstep.cli.shared.calls import call_of
from fewstep.cli.tune.report import usage
from fewstep.errors import InputError
from fewstep.models import zoo


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return text_folder.stable_diffusion_xl(tmp_path_factory.mktemp("xl"))


def fewstep(*words):
    made = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert made.exit_code == 0, made.output
    return made.output


def test_values_have_types(tmp_path):
    Image.new("L", (4, 4), 7).save(tmp_path / "photo.png")
    words = ["height=512", "guidance_scale = 2.5", "use_resolution_binning=false", "sizes=[1, 2]", "negative_prompt=1"]
    call = call_of([*words, f"mask_image={tmp_path / 'photo.png'}", "eta=None", "negative_prompt_2=a=b"])
    picture = call.pop("mask_image")
    assert picture.size == (4, 4) and picture.mode == "RGB" and picture.getpixel((0, 0)) == (7, 7, 7)
    assert call == {
        "height": 512,
        "guidance_scale": 2.5,
        "use_resolution_binning": False,
        "sizes": [1, 2],
        "negative_prompt": "1",
        "eta": None,
        "negative_prompt_2": "a=b",
    }


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["height"], "write what the pipeline is called with as name=value"),
        (["=3"], "write what the pipeline is called with as name=value"),
        (["height="], "write what the pipeline is called with as name=value"),
        (["height=1", "height=2"], "given twice"),
        (["prompt=a cat"], "is --prompt here"),
        (["image=nowhere.png"], "the picture cannot be read"),
    ],
)
def test_mistakes_are_answered(words, answer):
    with pytest.raises(InputError, match=answer):
        call_of(words)


def test_guidance_is_given_once():
    assert call_of(["guidance_scale=2"]) == {"guidance_scale": 2}
    with pytest.raises(InputError, match="both given"):
        call_of(["guidance_scale=2"], "3")


def test_samples_are_those_of_the_call(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = ["--model", folder, "--call", "height=24", "--call", "width=16", "--call", "negative_prompt=a horse"]
    words = [*model, "--prompt", "a cat", "--steps", 2]
    fewstep("sample", *words, "--num", 2, "--out", "a.npz")
    fewstep("generate", *words, "--num", 2, "--out", "generated")
    with np.load("a.npz") as sampled, np.load("generated/samples-00000.npz") as generated:
        assert sampled["images"].shape == (2, 24, 16, 3)
        np.testing.assert_array_equal(sampled["images"], generated["images"])
    settings = json.loads((tmp_path / "generated" / "manifest.json").read_text())["settings"]
    assert settings["call"] == ["height=24", "width=16", "negative_prompt=a horse"]
    with pytest.raises(InputError, match="call"):
        fewstep("generate", *[str(word).replace("=24", "=16") for word in words], "--num", 2, "--out", "generated")
    fewstep("sample", *words, "--num", 2, "--guidance", 2, "--out", "guided.npz")
    fewstep("sample", *words, "--num", 2, "--call", "guidance_scale=2", "--out", "called.npz")
    with np.load("guided.npz") as guided, np.load("called.npz") as called, np.load("a.npz") as sampled:
        np.testing.assert_array_equal(guided["images"], called["images"])
        assert not np.array_equal(guided["images"], sampled["images"])
    compared = ["--metrics", "error", "--solvers", "ddim", "--grids", "uniform_time", "--exact-steps", 4]
    fewstep("compare", *words, *compared, "--num", 2, "--out", "compared")
    table = json.loads((tmp_path / "compared" / "table.json").read_text())
    assert "--call 'negative_prompt=a horse'" in table["command"]
    assert all("--call height=24" in row["command"] for row in table["rows"])


def test_the_command_that_uses_a_tuned_recipe_has_it(tmp_path):
    settings = TuneSettings(model="folder", out=tmp_path / "found.json", call=("height=24", "negative_prompt=a b"))
    assert " --call height=24 --call 'negative_prompt=a b' --recipe" in usage(settings, zoo.model("fashion-mnist"))[0]
    assert "--call height=24 --call 'negative_prompt=a b'" in spelled("tune", settings)


def test_the_doctor_takes_it(folder):
    told = fewstep("doctor", folder, "--steps", 3, "--call", "denoising_end=0.8", "--call", "height=24")
    assert "StableDiffusionXLPipeline" in told
    for words, answer in (
        (["--call", "hight=24"], "takes no 'hight': it takes prompt, prompt_2, height"),
        (["--call", "height=24", "--height", "32"], "both given"),
    ):
        with pytest.raises(InputError, match=answer):
            fewstep("doctor", folder, "--steps", 3, *words)


def test_what_the_pipeline_does_not_take_is_answered_before_it_is_loaded(folder, monkeypatch):
    def fails(*_, **__):
        raise AssertionError("loaded")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", fails)
    for setting, answer in (
        ("hight=24", "StableDiffusionXLPipeline takes no 'hight': it takes prompt, prompt_2, height"),
        ("num_inference_steps=24", "num_inference_steps is what fewstep decides"),
    ):
        with pytest.raises(InputError, match=answer):
            fewstep("sample", "--model", folder, "--prompt", "a cat", "--call", setting)
    with pytest.raises(InputError, match="is for the folder of a pipeline"):
        fewstep("sample", "--call", "height=24")

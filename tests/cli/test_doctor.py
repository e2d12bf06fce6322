"""``fewstep doctor``: the diagnosis of a folder as text, JSON and picture."""

from __future__ import annotations

import json

import pytest
from support import tiny_pipelines as tiny
from typer.testing import CliRunner

from fewstep.cli.app import app
from fewstep.errors import InputError


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "models" / "lfw32-ddpm"


def doctor(*words):
    return CliRunner().invoke(app, ["doctor", *(str(word) for word in words)])


def test_a_trained_pipeline(folder, tmp_path):
    told = doctor(folder, "--steps", 8, "--plot", tmp_path / "doctor.png")
    assert told.exit_code == 0, told.output
    assert "DDPM" in told.output and len(told.output.splitlines()) >= 10
    assert (tmp_path / "doctor.png").read_bytes()[:4] == b"\x89PNG"


def test_json(folder):
    found = json.loads(doctor(folder, "--steps", 4, "--json").output)
    assert len(found["steps"]) == 4 and isinstance(found["findings"], list)
    assert {"timestep", "sigma", "ratio", "half_logsnr"} == found["steps"][0].keys()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["nothing"], "is no folder"),
        (["nothing", "--plot", "figure.gif"], ".png or .svg"),
    ],
)
def test_mistakes(words, answer):
    made = doctor(*words)
    assert isinstance(made.exception, InputError) and answer in str(made.exception)


def test_a_folder_that_cannot_be_loaded_says_why(tmp_path):
    pipe, _ = tiny.stable_diffusion()
    pipe.save_pretrained(tmp_path / "model")
    made = doctor(tmp_path / "model", "--steps", 4)
    assert isinstance(made.exception, InputError) and "cannot be loaded" in str(made.exception)

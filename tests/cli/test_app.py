"""The application: help without torch, settings that spell themselves, and what a mistake looks like."""

import shlex
import subprocess
import sys
import time
import warnings
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typer
from typer.testing import CliRunner

from fewstep.cli.app import COMMANDS, app, run
from fewstep.cli.command import command, spelled
from fewstep.cli.settings.compare import CompareSettings
from fewstep.cli.settings.options import RecipeSamplerSettings
from fewstep.cli.shared import models, progress
from fewstep.cli.shared.features import few_images
from fewstep.errors import InputError

HEAVY = {"torch", "numpy", "scipy", "matplotlib", "diffusers", "jinja2", "PIL"}


@pytest.mark.parametrize(
    "words", [["--help"], ["sample", "--help"], ["skip", "search", "--help"], ["compare", "--grid"]]
)
def test_help_and_mistyped_options_wait_for_nothing(words):
    code = f"""
import sys
from fewstep.cli import main
sys.argv = ["fewstep", *{words!r}]
try:
    main()
except SystemExit:
    pass
print("modules:", *{{name.partition(".")[0] for name in sys.modules}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rpartition("modules:")[2].split())
    assert "fewstep" in loaded and not HEAVY & loaded


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_function_and_an_example(name):
    settings, run = COMMANDS[name]
    module, _, function = run.partition(":")
    __import__(module)
    assert callable(getattr(sys.modules[module], function))
    assert f"Example: fewstep {name} " in settings.__doc__


def test_settings_spell_themselves(monkeypatch):
    """What ``spelled`` writes is read as the same settings."""
    held: list[CompareSettings] = []
    monkeypatch.setitem(sys.modules, "holding", SimpleNamespace(hold=held.append))
    given = CompareSettings(
        out=Path("a b"),
        model="a pipeline",
        solvers="unipc:order=2",
        class_="3",
        trust_pickle=True,
        num=5,
        prompt="a 'cat'",
        guidance="2.5",
    )
    words = spelled("compare", given)
    assert words.startswith("fewstep compare") and "--class 3" in words and "--trust-pickle" in words
    single = typer.Typer()
    single.command()(command(CompareSettings, "holding:hold"))
    done = CliRunner().invoke(single, shlex.split(words)[2:], catch_exceptions=False)
    assert done.exit_code == 0 and held == [given]


def test_every_option_is_spelled_by_its_field():
    """``--batch-size`` for ``batch_size``, ``--class`` for ``class_``."""
    for name, (settings, _) in COMMANDS.items():
        done = CliRunner(env={"COLUMNS": "300", "TERM": "dumb"}).invoke(app, [*name.split(), "--help"])
        for field in fields(settings):
            option = f"--{field.name.rstrip('_').replace('_', '-')}"
            positional = {"evaluate": "images", "doctor": "model", "tune": "model", "reproduce": "table"}
            assert option in done.output or positional.get(name) == field.name, (name, option)


def test_a_recipe_decides_the_sampler():
    with pytest.raises(InputError, match="leave --grid out"):
        RecipeSamplerSettings(recipe=Path("r.json"), grid="karras")


def test_a_warning_is_a_sentence(monkeypatch, capsys):
    single = typer.Typer()
    single.command()(lambda: warnings.warn("this [model] is another one.", UserWarning, stacklevel=1))
    monkeypatch.setattr("fewstep.cli.app.app", lambda: single([], standalone_mode=False))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        run()
    assert capsys.readouterr().err == "warning: this [model] is another one.\n"


def test_half_precision_is_slow_where_it_is_measured_so(monkeypatch):
    times = {torch.float32: 1.0, torch.bfloat16: 40.0, torch.float16: 1.5}
    monkeypatch.setattr(models, "_seconds", times.__getitem__)
    assert [models.is_slow("cpu", kind) for kind in times] == [False, True, False]
    assert not models.is_slow("meta", torch.bfloat16)


def test_few_images_are_said_to_be_few():
    assert few_images(640, 64, "fd") is None and few_images(63, 64, "fd") is None  # Of the latter the distance warns.
    assert "fd of 100 images in 64 dimensions is of few" in few_images(100, 64, "fd")
    assert "take 640 or more" in few_images(100, 64, "fd")


def test_a_line_is_printed_while_nothing_moves(monkeypatch, capsys):
    monkeypatch.setattr(progress, "PERIOD", 0.01)
    with progress.bar() as shown:
        shown.add_task("calibrating", total=None, shown="12 calls")
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert lines and set(lines) == {"calibrating: 12 calls"}

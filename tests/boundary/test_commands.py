"""Every command, every option: done, or exit code 2 with one line, soon; no file changes.

Commands and options are found in ``fewstep.cli.app.COMMANDS``: a new one is in it.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from support.boundary import BASES, called, line, tree

import fewstep as fs
from fewstep.cli.app import COMMANDS
from fewstep.cli.command import WRITTEN

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does"),
    pytest.mark.usefixtures("limited"),
]
assert torch.__version__  # Imported here, so that no time limit stops it half-way.
for _, where in COMMANDS.values():
    importlib.import_module(where.partition(":")[0])
NAMES = ("out", "model", "grid", "recipe", "skip", "seeds")
"""Options that are read in many ways: they get more of the words."""
WORDS = ["", " ", "x", "²", "1e400", "9" * 5000, "-1", "0", "nan", "inf", "1e10", "a\x1b[2Jb", "[/b]", "$x_{$", "a" * 5000, "/dev/null", "/dev/zero", "pipe", "folder", "/root/no", "no/such", "a,b", ":", "os.path:join", "karras:rho=", "None", "\udcff", "--", "images.npz", "damaged.json"]  # fmt: skip  # noqa: E501
"""What stands behind an option."""


def options_of(name: str) -> list[str]:
    """Return the options that take a value."""
    hints = get_type_hints(COMMANDS[name][0])
    return [field.name for field in fields(COMMANDS[name][0]) if bool not in (hints[field.name], *get_args(hints[field.name]))]  # fmt: skip  # noqa: E501


def test_every_command_has_a_short_call():
    assert set(BASES) == set(COMMANDS), "a new command needs a short call in BASES"
    for name, (kind, _) in COMMANDS.items():
        needed = {field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING}
        assert needed <= set(BASES[name]), name


@pytest.mark.parametrize("name", sorted(set(BASES) - {"reproduce"}))  # That one needs the papers' networks.
def test_the_short_call_does_what_it_should(name, place):
    """So that the tests below change one thing alone."""
    answer = called(*line(name))
    assert (answer.code, answer.error) == (0, None), answer


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize("name", sorted(set(BASES) - {"reproduce"}))
def test_json_that_is_written_is_json(name, place):
    """NaN and infinity stand in no file: other readers refuse them."""
    words = line(name)
    answer = called(words[0], *(["--json"] if name == "doctor" else []), *words[1:])
    assert answer.code == 0
    written = [path.read_text() for path in place.rglob("*.json") if path.name != "damaged.json"]
    for text in [*written, *([answer.out] if name == "doctor" else [])]:
        json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("name", BASES)
def test_every_option_may_be_anything(name, place):
    before, wrong = tree(place), []
    for number, option in enumerate(options_of(name)):
        chosen = WORDS[number % 3 :: 3] if option in NAMES else WORDS[number % 9 :: 9]
        for word in chosen:
            if option in WRITTEN and word.endswith((".json", ".npz")):
                continue  # What is there may be written anew.
            answer = called(*line(name, **{option: word}))
            wrong += answer.complaints(f"{name} --{option} {word[:40]!r}")
            wrong += [f"{name} --{option} {word[:40]!r} changed {one}" for one in sorted(before.changed(place))]
            before.remove_new(place)
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong[:40])


@pytest.mark.parametrize("name", ["calibrate", "generate", "compare", "skip search"])
def test_out_is_tried_before_the_work(name, place, monkeypatch):
    """A name that cannot be written is answered before the model is loaded."""
    from fewstep.models import loading

    monkeypatch.setattr(loading, "load_entry", lambda *_: pytest.fail("the model was loaded"))
    suffix = Path(BASES[name]["out"]).suffix
    answer = called(*line(name, out=f"no/such/out{suffix}"))
    assert answer.code == 2 and not answer.complaints(name)


def test_an_output_that_is_an_input_is_refused(place):
    fs.grids.karras(fs.processes.VPLinear(), 2).save(place / "grid.json")
    before = tree(place)
    answer = called(*line("calibrate", grid="grid.json", out="grid.json"))
    assert answer.code == 2 and "--grid names too" in answer.err and not before.changed(place)
    (place / "boots.png").write_bytes(b"a picture")
    answer = called(*line("skip search", out="boots.json"))
    assert answer.code == 2 and "would overwrite boots.png" in answer.err
    assert (place / "boots.png").read_bytes() == b"a picture"


SHARED = [
    ("steps", "0"), ("seed", "-1"), ("class_", "boot"), ("guidance", "nan"), ("guidance", "x"), ("num", "0"),
    ("guidance", "3:interval=2:0.2"), ("guidance", "3:interval=x:2"), ("batch_size", "0"),
]  # fmt: skip
"""Mistakes in options that several commands share."""


@pytest.mark.parametrize("name", BASES)
def test_mistakes_are_answered_before_anything_is_imported(name, place, monkeypatch):
    """The function of the command is not even looked for: torch alone takes seconds."""
    monkeypatch.setattr(importlib, "import_module", lambda name, *_: pytest.fail(f"{name} was imported"))
    options = {field.name for field in fields(COMMANDS[name][0])}
    for option, word in SHARED:
        if option not in options:
            continue
        answer = called(*line(name, **{option: word}))
        assert answer.code == 2 and not answer.complaints(f"{name} --{option} {word}")
        assert f"--{option.rstrip('_').replace('_', '-')}" in answer.err


@pytest.mark.parametrize("option", ["prompt", "prompts"])
def test_a_prompt_for_the_embedded_model(option, place, monkeypatch):
    monkeypatch.setattr(importlib, "import_module", lambda name, *_: pytest.fail(f"{name} was imported"))
    answer = called(*line("sample", model="fashion-mnist", **{option: "x"}))
    assert answer.code == 2 and f"--{option} is given, and the model fashion-mnist takes no prompts" in answer.err

"""Every command, every option, every file that it reads: done, or exit code 2 with one line, soon; no file changes.

Commands and options are found in ``fewstep.cli.app.COMMANDS``: a new one is in it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import resource
import signal
import sys
import warnings
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.boundary import Answer, tree

import fewstep as fs
from fewstep.cli.app import COMMANDS, run
from fewstep.cli.command import WRITTEN

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does")
LIMIT = 10
"""Seconds that a refusal may take."""
assert torch.__version__  # Imported here, so that no time limit stops it half-way.
for _, where in COMMANDS.values():
    importlib.import_module(where.partition(":")[0])
BASES: dict[str, dict[str, str]] = {
    "sample": {"model": "support.generating:tiny", "num": "2", "steps": "2", "out": "out.npz"},
    "grid": {"steps": "3", "grid": "karras", "out": "out.json"},
    "generate": {"model": "support.generating:tiny", "num": "2", "steps": "2", "out": "out"},
    "evaluate": {"images": "images.npz", "reference": "images.npz", "out": "out.json"},
    "compare": {"model": "support.generating:tiny", "num": "2", "steps": "2", "solvers": "ddim", "grids": "karras",
                "metrics": "error", "reference_steps": "10", "out": "out"},
    "calibrate": {"model": "support.generating:tiny", "num": "8", "steps": "2", "reference_steps": "8",
                  "objective": "local", "out": "out.json"},
    "tune": {"model": "support.generating:tiny", "calls": "2", "budget": "60", "pictures": "0", "out": "out.json"},
    "reproduce": {"table": "sa-solver-cifar10", "weights": "folder", "out": "out"},
    "doctor": {"model": "folder", "steps": "2"},
    "skip diagnose": {"model": "support.generating:tiny", "data": "images.npz", "num": "2", "out": "out"},
    "skip search": {"model": "support.generating:tiny", "num": "2", "points": "2", "out": "out.json"},
}  # fmt: skip
"""A short call of each command."""
POSITIONAL = {"evaluate": "images", "reproduce": "table", "doctor": "model", "tune": "model"}
NAMES = ("out", "model", "grid", "recipe", "skip", "seeds")
"""Options that are read in many ways: they get more of the words."""
WORDS = ["", " ", "x", "²", "1e400", "9" * 5000, "-1", "0", "nan", "inf", "1e10", "a\x1b[2Jb", "[/b]", "$x_{$", "a" * 5000, "/dev/null", "/dev/zero", "pipe", "folder", "/root/no", "no/such", "a,b", ":", "os.path:join", "karras:rho=", "None", "\udcff", "--", "images.npz", "damaged.json"]  # fmt: skip  # noqa: E501
"""What stands behind an option."""


@pytest.fixture(autouse=True, scope="module")
def limited():
    """What would fill the machine's memory is an error instead."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with something of every kind in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "cache").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "damaged.json").write_text("{")
    np.savez(tmp_path / "images.npz", images=np.random.default_rng(0).integers(0, 255, (4, 4, 4, 1), np.uint8))
    return tmp_path


def called(*words: str) -> Answer:
    """Run a command in this process."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")

    def stop(*_: Any) -> None:
        raise TimeoutError

    before, argv = signal.signal(signal.SIGALRM, stop), sys.argv
    code, error = 0, None
    sys.argv = ["fewstep", *words]
    signal.alarm(LIMIT)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException as raised:
        error = f"{type(raised).__name__}: {str(raised)[:200]}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        sys.argv = argv
    for stream in (out, err):
        stream.flush()
    return Answer(code, err.buffer.getvalue().decode("utf-8", "replace"), error)


def line(name: str, **changed: str | None) -> list[str]:
    """Return the words of a command with some options changed."""
    chosen = {**BASES[name], **changed}
    positional = POSITIONAL.get(name)
    arguments = [str(chosen.pop(positional))] if positional in chosen else []
    options = [f"--{key.rstrip('_').replace('_', '-')}={value}" for key, value in chosen.items() if value is not None]
    return [*name.split(), *options, *(["--", *arguments] if arguments else [])]


def options_of(name: str) -> list[str]:
    """Return the options that take a value."""
    hints = get_type_hints(COMMANDS[name][0])
    return [field.name for field in fields(COMMANDS[name][0]) if bool not in (hints[field.name], *get_args(hints[field.name]))]  # fmt: skip  # noqa: E501


def test_every_command_has_a_short_call():
    assert set(BASES) == set(COMMANDS), "a new command needs a short call in BASES"
    for name, (kind, _) in COMMANDS.items():
        needed = {field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING}
        assert needed <= set(BASES[name]), name


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


def recipe() -> str:
    process = fs.processes.VPLinear()
    plan = fs.UniPC(2).plan(fs.grids.karras(process, 2, end="zero"))
    model = {"network": "x", "prediction": "x0", "guidance_scale": 1.0}
    return fs.Recipe(plan, model=model, guidance=1.0, tuning={"verdict": {}}).to_json()


FILES = {
    "grid": lambda: fs.grids.karras(fs.processes.VPLinear(), 2, end="zero").to_json(),
    "recipe": recipe,
    "skip": lambda: fs.skip.Profile(0.8, sigma_window=(0.1, 2.0), ramp=0.5).to_json(),
}
"""What each kind of file holds, by the option that names it."""
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.text(max_size=5), st.just([]),
    st.just({}), st.lists(st.floats(), max_size=3), st.just("1.0"), st.just([None]), st.just([[[]]]),
)  # fmt: skip


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = list(data) if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    return [path] * bool(path) + [one for key in keys for one in places(data[key], (*path, key))]


@pytest.mark.parametrize("option", FILES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_file_may_hold_anything(option, place, data):
    """A field of a file is something else, or gone."""
    held = json.loads(FILES[option]())
    path = data.draw(st.sampled_from(places(held)))
    inner = held
    for key in path[:-1]:
        inner = inner[key]
    if data.draw(st.booleans()):
        inner[path[-1]] = data.draw(VALUES)
    elif isinstance(inner, dict):
        del inner[path[-1]]
    text = json.dumps(held)
    (place / "file.json").write_text(text)
    changed = {"steps": None, "grid": None} if option == "recipe" else {}
    answer = called(*line("sample", **{**changed, option: "file.json"}))
    assert not answer.complaints(f"--{option} with {path}")
    assert (place / "file.json").read_text() == text
    (place / "out.npz").unlink(missing_ok=True)


DAMAGED = ["", "[" * 100_000, "{}", "null", "\xff", '{"format": ' + "9" * 5000 + "}"]


@pytest.mark.parametrize("option", FILES)
@pytest.mark.parametrize("text", DAMAGED, ids=range(6))
def test_every_file_may_be_damaged(option, text, place):
    (place / "file.json").write_bytes(text.encode("latin-1"))
    changed = {"steps": None, "grid": None} if option == "recipe" else {}
    answer = called(*line("sample", **{**changed, option: "file.json"}))
    assert answer.code == 2 and not answer.complaints(option)


@pytest.mark.parametrize("name", ["calibrate", "generate", "compare", "skip search"])
def test_out_is_tried_before_the_work(name, place, monkeypatch):
    """A name that cannot be written is answered before the model is loaded."""
    from fewstep.models import loading

    monkeypatch.setattr(loading, "load_entry", lambda *_: pytest.fail("the model was loaded"))
    suffix = Path(BASES[name]["out"]).suffix
    answer = called(*line(name, out=f"no/such/out{suffix}"))
    assert answer.code == 2 and not answer.complaints(name)


def test_an_output_that_is_an_input_is_refused(place):
    (place / "grid.json").write_text(FILES["grid"]())
    before = tree(place)
    answer = called(*line("calibrate", grid="grid.json", out="grid.json"))
    assert answer.code == 2 and "--grid names too" in answer.err and not before.changed(place)
    (place / "boots.png").write_bytes(b"a picture")
    answer = called(*line("skip search", out="boots.json"))
    assert answer.code == 2 and "would overwrite boots.png" in answer.err
    assert (place / "boots.png").read_bytes() == b"a picture"

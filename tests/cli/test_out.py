"""``--out`` of every command that writes: tried before any work, held while it lasts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from support import holding

from fewstep.cli.app import COMMANDS
from fewstep.cli.command import WRITTEN
from fewstep.cli.shared import models

MODEL = ["--model", "support.generating:tiny"]
FILES = {
    "sample": ["sample", *MODEL, "--num", "2", "--steps", "2", "--out", "NAME.png"],
    "grid": ["grid", "--steps", "3", "--grid", "karras", "--out", "NAME.json"],
    "grid --plot": ["grid", "--steps", "3", "--grid", "karras", "--plot", "NAME.png"],
    "evaluate": ["evaluate", "images.npz", "--reference", "images.npz", "--out", "NAME.json"],
    "calibrate": ["calibrate", *MODEL, "--num", "8", "--steps", "2", "--reference-steps", "8", "--out", "NAME.json"],
    "skip search": ["skip", "search", *MODEL, "--num", "2", "--points", "2", "--out", "NAME.json"],
    "tune": ["tune", "support.generating:tiny", "--calls", "2", "--budget", "60", "--out", "NAME.json"],
    "doctor --plot": ["doctor", "folder", "--plot", "NAME.png"],
}
"""Commands that write a file."""
FOLDERS = {
    "generate": ["generate", *MODEL, "--num", "2", "--steps", "2", "--out", "NAME"],
    "compare": ["compare", *MODEL, "--num", "2", "--steps", "2", "--metrics", "error", "--out", "NAME"],
    "skip diagnose": ["skip", "diagnose", *MODEL, "--data", "images.npz", "--num", "2", "--out", "NAME"],
    "reproduce": [
        "reproduce",
        "sa-solver-cifar10",
        "--weights",
        "folder",
        "--inception",
        "none.pth",
        "--trust-pickle",
        "--out",
        "NAME",
    ],
}
"""Commands that write a folder."""
ALL = FILES | FOLDERS
HELD = ("generate", "compare", "calibrate", "skip search", "skip diagnose")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("images.npz", images=np.zeros((4, 4, 4, 1), np.uint8))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    monkeypatch.setattr(models, "load_entry", lambda *_: pytest.fail("the model was loaded"))
    for name in (
        "generate.command",
        "compare.command",
        "calibrate",
        "sample",
        "skip.search",
        "skip.diagnose",
        "tune.command",
    ):
        monkeypatch.setattr(f"fewstep.cli.{name}.load_model", lambda *_: pytest.fail("the model was loaded"))
    monkeypatch.setattr("fewstep.cli.doctor.read_pipeline", lambda *_: pytest.fail("the pipeline was read"))
    monkeypatch.setattr("fewstep.cli.grid.spectrum_of", lambda *_: pytest.fail("a spectrum was measured"))
    monkeypatch.setattr("fewstep.cli.evaluate.needed_features", lambda *_: pytest.fail("features were loaded"))
    return tmp_path


def named(name: str, out: str) -> list[str]:
    suffix = Path(ALL[name][-1]).suffix
    return [*ALL[name][:-1], out + suffix]


def everything() -> dict[str, object]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(Path().rglob("*"))}


def test_every_command_that_writes_is_here():
    writing = {name for name, (settings, _) in COMMANDS.items() if set(WRITTEN) & set(settings.__dataclass_fields__)}
    assert writing == {name.partition(" --")[0] for name in ALL}


@pytest.mark.parametrize("name", ALL)
def test_a_name_that_cannot_be_written_is_answered_before_the_work(name, fails):
    before = everything()
    for out in ("no/such/out", "a" * 300, "images.npz/out", "/proc/out", "b/" * 2100 + "out"):
        option = "--plot" if "--plot" in name else "--out"
        assert fails(*named(name, out)).startswith(f"error: {option} is "), out[:40]
    assert everything() == before


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_the_place_of_a_file(name, fails):
    out = Path(named(name, "taken")[-1])
    out.mkdir()
    assert "folder" in fails(*named(name, "taken"))
    assert out.is_dir() and not list(out.iterdir())


@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_in_the_place_of_a_folder(name, fails):
    Path("taken").write_text("mine")
    fails(*named(name, "taken"))
    assert Path("taken").read_text() == "mine"


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_read_only_stays(name, fails):
    out = Path(named(name, "taken")[-1])
    out.write_text("mine")
    out.chmod(0o444)
    assert "read-only" in fails(*named(name, "taken"))
    assert out.read_text() == "mine"


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("name", ALL)
def test_a_folder_that_takes_no_files(name, fails):
    Path("closed").mkdir(mode=0o555)
    assert "cannot be written" in fails(*named(name, "closed/out"))


@pytest.mark.parametrize("name", HELD)
def test_a_name_that_another_process_writes_to_is_refused(name, fails):
    place = Path(named(name, "busy")[-1])
    place = place if name in ("generate", "compare") else place.with_name(f"{place.name}.partial")
    other = holding.start(place)
    try:
        assert "another fewstep process is writing there" in fails(*named(name, "busy"))
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)

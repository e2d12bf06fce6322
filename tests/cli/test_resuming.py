"""Long commands that are killed at any moment: the same command gives what it would have given, and redoes nothing."""

from __future__ import annotations

import json
import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from support import killing
from support.generating import fewstep

from fewstep.errors import FewstepError

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="a process cannot be copied here"),
]
UNET = ["--model", "support.generating:counted_unet", "--batch-size", "4", "--features", "torchscript:rows.pt"]
COMMANDS = {
    "calibrate": [
        "calibrate", "--model", "support.generating:counted", "--steps", "2", "--num", "8", "--batch-size", "4",
        "--reference-steps", "12", "--analytic", "1", "--history", "2", "--out", "out.json",
    ],
    "skip search": [
        "skip", "search", *UNET, "--steps", "2", "--num", "12", "--reference", "images.npz", "--points", "3",
        "--out", "out.json",
    ],
    "skip search by the loss": [
        "skip", "search", *UNET, "--steps", "2", "--num", "12", "--metric", "feature-loss", "--data", "images.npz",
        "--points", "3", "--out", "out.json",
    ],
    "skip diagnose": [
        "skip", "diagnose", *UNET, "--data", "images.npz", "--num", "8", "--levels", "3", "--inversion-steps", "4",
        "--out", "out",
    ],
}  # fmt: skip


class Rows(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, one_thread):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    torch.jit.save(torch.jit.trace(Rows(), torch.zeros(2, 1, 8, 8)), tmp_path / "rows.pt")
    return tmp_path


def calls() -> int:
    """How often the network was called so far, in all processes."""
    path = Path("calls")
    return path.stat().st_size if path.exists() else 0


def written() -> dict[str, object]:
    """What a command wrote, by its files, but for how long it took."""
    found: dict[str, object] = {}
    for path in (Path("out.json"), Path("out.png"), *Path("out").glob("*")):
        if path.suffix == ".json" and path.is_file():
            found[str(path)] = json.loads(path.read_text())
            found[str(path)].get("calibration", {}).get("report", {}).pop("seconds", None)
        elif path.is_file():
            found[str(path)] = path.read_bytes()
    return found


def cleared(result: dict[str, object]) -> dict[str, object]:
    for path in result:
        os.remove(path)
    for path in Path().glob("out"):
        path.rmdir()
    return result


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_killed_at_random_moments_gives_the_same(name, monkeypatch):
    words = COMMANDS[name]
    printed = fewstep(*words)
    whole, expected = calls(), cleared(written())
    assert expected and not [path for path in Path().iterdir() if "partial" in path.name]
    os.remove("calls")
    monkeypatch.setenv("SLOW", "0.005")
    kills = 0
    for share in sorted(random.uniform(0.0, 0.8) for _ in range(3)):  # Any moment must do: these are not seeded.
        due = calls() + 1 if kills and calls() >= share * whole else max(1, int(share * whole))
        kills += killing.killed_when(words, lambda: calls() >= due)  # noqa: B023
        assert not written()
    monkeypatch.delenv("SLOW")
    assert fewstep(*words).splitlines()[-1] == printed.splitlines()[-1] or name == "calibrate"
    assert written() == expected
    assert not [path for path in Path().iterdir() if "partial" in path.name or path.name.startswith(".fewstep-")]
    # A killed run loses what it was at; a run that goes on makes one thing again, to see that the model is the same.
    most = {"calibrate": 1, "skip search": 2, "skip search by the loss": 3, "skip diagnose": 4}[name]
    assert whole <= calls() <= whole + 2 * kills * most


def stopped(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Kill a command in its middle, and return the folder of its journal."""
    monkeypatch.setenv("SLOW", "0.005")
    assert killing.killed_when(words, lambda: calls() >= 20)
    monkeypatch.delenv("SLOW")
    (folder,) = (path for path in Path("out.json.partial").iterdir() if path.is_dir())
    return folder


def test_damaged_entries_are_made_again(monkeypatch):
    words = COMMANDS["calibrate"]
    fewstep(*words)
    expected = cleared(written())
    os.remove("calls")
    entries = sorted(stopped(words, monkeypatch).glob("*.npz"))
    assert len(entries) > 10
    for number, damage in enumerate((b"", b"PK\x03\x04", entries[3].read_bytes()[:-9], b"x" * 100)):
        entries[number].write_bytes(damage)
    flipped = bytearray(entries[4].read_bytes())
    with zipfile.ZipFile(entries[4]) as archive:
        flipped[archive.infolist()[0].header_offset + 180] ^= 1
    entries[4].write_bytes(flipped)
    before = calls()
    fewstep(*words)
    assert written() == expected
    assert calls() > before + 5


def test_other_settings_and_other_models_take_nothing_from_it(monkeypatch, folder):
    words = COMMANDS["calibrate"]
    other = [*words, "--reference-steps", "13"]
    fewstep(*other)
    expected, needed = cleared(written()), calls()
    os.remove("calls")
    stopped(words, monkeypatch)
    before = calls()
    fewstep(*other)
    assert calls() - before == needed and written() == expected
    assert not Path("out.json.partial").exists()


def test_a_model_without_weights_that_was_changed_is_noticed(monkeypatch, folder):
    """Its name, its file and its (absent) weights are the same, and yet it predicts something else."""
    source = "from support import generating as g\nimport fewstep as fs, os\ndef load():\n"
    source += " level = float(os.environ['LEVEL'])\n"
    source += " def f(x, t):\n  g._count()\n  return level * x.tanh()\n"
    source += " return fs.Denoiser(f, fs.processes.VPLinear(), 'x0', shape=(1, 4, 4))\n"
    (folder / "changing.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    words = list(COMMANDS["calibrate"])
    words[2] = "changing:load"
    monkeypatch.setenv("LEVEL", "0.5")
    fewstep(*words)
    expected = cleared(written())
    monkeypatch.setenv("LEVEL", "0.3")
    os.remove("calls")
    stopped(words, monkeypatch)
    monkeypatch.setenv("LEVEL", "0.5")
    fewstep(*words)
    assert written() == expected


def test_a_refusal_leaves_nothing(monkeypatch):
    words = list(COMMANDS["calibrate"])
    words[2] = "support.generating:broken"
    before = sorted(os.listdir())
    with pytest.raises(FewstepError, match="not finite"):
        fewstep(*words)
    assert sorted(os.listdir()) == before

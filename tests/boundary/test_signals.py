"""Commands that are ended by a signal: the usual exit code, nothing half-written, and no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fewstep.cli.app import COMMANDS

SLOW = ["--model", "support.generating:counted"]
UNET = ["--model", "support.generating:counted_unet", "--features", "torchscript:counting.pt"]
RUNS = {
    "calibrate": [*SLOW, "--num", "64", "--steps", "4", "--batch-size", "1", "--out", "out.json"],
    "generate": [*SLOW, "--num", "4096", "--steps", "20", "--batch-size", "2", "--out", "out"],
    "compare": [*SLOW, "--num", "512", "--steps", "4", "--metrics", "error", "--batch-size", "2", "--out", "out"],
    "sample": [
        *SLOW, "--num", "4096", "--steps", "1000", "--grid", "uniform_time", "--solver", "ddim", "--out", "out.npz",
    ],
    "evaluate": [
        "images.npz", "--reference", "images.npz", "--features", "torchscript:counting.pt", "--batch-size", "1",
        "--out", "out.json",
    ],
    "tune": [SLOW[1], "--calls", "4", "--budget", "5000", "--batch-size", "1", "--out", "out.json"],
    "skip search": [
        *UNET, "--steps", "4", "--num", "400", "--reference", "few.npz", "--batch-size", "2", "--out", "out.json",
    ],
    "skip diagnose": [*UNET, "--data", "images.npz", "--num", "400", "--batch-size", "2", "--out", "out"],
}  # fmt: skip
"""Runs of a minute and more, of every command but those that are done in a moment."""
SHORT = ("grid", "doctor")
AT_ONCE = ("sample", "evaluate")
"""Commands that begin anew when they were stopped."""
KEPT = {"generate": {"manifest.json"}, "compare": {"manifest.json"}}
"""What is there from the beginning, and stays for the run that goes on."""


class Counting(torch.nn.Module):
    """Features that take their time."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for _ in range(3000):
            images = images.sin()
        return images.mean((1, 2))


def test_every_command_is_here():
    """That of reproduce has its own tests, of the same."""
    assert set(RUNS) | set(SHORT) | {"reproduce"} == set(COMMANDS)


@pytest.fixture
def folder(tmp_path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (20_000, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    np.savez(tmp_path / "few.npz", images=images[:20])
    torch.jit.script(Counting()).save(tmp_path / "counting.pt")
    (tmp_path / "tmp").mkdir()
    return tmp_path


def heeding() -> None:
    """Heed SIGINT, which a job in the background inherits as ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("name", RUNS)
def test_a_signal_ends_a_command(name, number, code, folder):
    """It comes in the middle of the work: half a second after the first call of the network."""
    given = {path.name for path in folder.iterdir()}
    words = [sys.executable, "-m", "fewstep.cli", *name.split(), *RUNS[name]]
    paths = os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])
    caches = {"FEWSTEP_CACHE": str(folder / "tmp" / "cache"), "TORCHINDUCTOR_CACHE_DIR": str(folder / "tmp" / "cache")}
    more = {"CALLS": str(folder / "tmp" / "calls"), "SLOW": "0.02", **caches}
    environment = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1", **more}
    with subprocess.Popen(
        words, cwd=folder, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=heeding
    ) as run:
        began = time.monotonic()
        while run.poll() is None and time.monotonic() < began + 60 and not (folder / "tmp" / "calls").exists():
            time.sleep(0.05)
            if name == "evaluate" and time.monotonic() > began + 5:  # Its network is a script, which counts nothing.
                break
        time.sleep(0.5)
        assert run.poll() is None, run.communicate()
        run.send_signal(number)
        _, said = run.communicate(timeout=60)
    assert run.returncode in (code, -number), said
    assert b"Traceback" not in said
    if run.returncode == code:
        assert (b"stopped: nothing was written" if name in AT_ONCE else b"stopped: the same command goes on") in said
    assert {path.name for path in (folder / "tmp").iterdir()} <= {"calls", "cache"}
    assert not [path for path in folder.rglob("*") if path.name.startswith(".fewstep-")]
    left = {path.name for path in folder.iterdir()} - given
    if name in KEPT:  # Whole files alone.
        inside = {path.name for path in (folder / "out").iterdir()}
        assert left == {"out"} and inside >= KEPT[name]
        assert all(path.suffix in (".json", ".png", ".npz", ".npy") for path in (folder / "out").iterdir())
    else:  # A journal, from which the run goes on.
        assert left <= {"out.json.partial", "out.partial", "out.tune"}
        assert all(path.suffix in ("", ".npz") for path in folder.glob("*.partial/**/*"))

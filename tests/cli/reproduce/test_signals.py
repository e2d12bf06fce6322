"""``fewstep reproduce`` ended by a signal: no half-written table, and the same command goes on where it stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import reproducing
from support.generating import fewstep

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:there are . samples"),
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"),
]
RESULTS = ("results.json", "results.md")
STOPS = (
    (signal.SIGINT, 130, "11-calls/samples-00000.npz"),
    (signal.SIGTERM, 143, "15-calls/samples-00000.npz"),
)
"""A signal, its exit code, and the file after which it comes: the first of two shards, of either row."""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, one_thread) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    table = reproducing.small("sa-solver-cifar10", tmp_path)
    table["rows"] = table["rows"][:2]
    assert [row["name"] for row in table["rows"]] == ["11-calls", "15-calls"]
    reproducing.write(tmp_path, table)
    return tmp_path


def heeding() -> None:
    """Heed SIGINT, which a job in the background inherits as ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stopped(folder: Path, number: int, after: str) -> tuple[int, bytes]:
    """Run the command until a file is there, send the signal, and return the exit code and what was said."""
    paths = os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])
    more = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "SLOW": "0.05"}
    words = [sys.executable, "-m", "fewstep.cli", *reproducing.words()]
    with subprocess.Popen(
        words, cwd=folder, env={**os.environ, **more}, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        preexec_fn=heeding,
    ) as run:  # fmt: skip
        until = time.monotonic() + 120
        while run.poll() is None and time.monotonic() < until and not (folder / "out" / after).exists():
            time.sleep(0.01)
        assert run.poll() is None, run.communicate()
        run.send_signal(number)
        _, said = run.communicate(timeout=60)
    return run.returncode, said


def test_a_signal_leaves_no_half_written_table_and_the_run_goes_on(folder):
    fewstep(*reproducing.words(out="whole"))
    kept: dict[Path, int] = {}
    for number, code, moment in STOPS:  # the second run goes on where the first one stopped
        ended, said = stopped(folder, number, moment)
        assert ended == code and b"Traceback" not in said
        assert b"stopped: the same command goes on from here" in said
        assert not any((folder / "out" / name).exists() for name in RESULTS)
        assert not [path for path in folder.rglob("*") if path.name.startswith(".fewstep-")]
        assert all(path.stat().st_mtime_ns == made for path, made in kept.items())  # nothing is made twice
        kept = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*") if _is_made(path)}
        assert folder / "out" / moment in kept
    printed = fewstep(*reproducing.words())
    assert printed.count("images/s") == 1  # the second row's, of which one half was there
    assert all(path.stat().st_mtime_ns == made for path, made in kept.items())
    for name in RESULTS:
        assert (folder / "out" / name).read_bytes() == (folder / "whole" / name).read_bytes()


def _is_made(path: Path) -> bool:
    """Whether it is a shard, or what was measured of a row."""
    return path.suffix == ".npz" or path.name.endswith("-calls.json")

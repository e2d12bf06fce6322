"""Commands that are ended by a signal: the usual exit code, nothing half-written, and no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

COMMANDS = {
    "calibrate": ["--num", "512", "--steps", "4", "--batch-size", "1", "--out", "out.json"],
    "generate": ["--num", "4096", "--steps", "20", "--batch-size", "2", "--out", "out"],
    "sample": ["--num", "4096", "--steps", "1000", "--grid", "uniform_time", "--solver", "ddim", "--out", "out.npz"],
}


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_ends_a_command(name, number, code, tmp_path):
    words = [sys.executable, "-m", "fewstep.cli", name, "--model", "support.generating:slow", *COMMANDS[name]]
    paths = os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(temporary)}
    with subprocess.Popen(words, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        time.sleep(4.0)
        began = run.poll() is None
        run.send_signal(number)
        _, said = run.communicate(timeout=60)
    assert began, said
    assert run.returncode in (code, -number), said
    assert b"Traceback" not in said
    assert not list(temporary.iterdir())
    left = [path.name for path in tmp_path.rglob("*") if path.name.startswith(".fewstep-")]
    assert not left and not (tmp_path / "out.json").exists() and not (tmp_path / "out.npz").exists()

"""Temporary memory is taken for real, holds no file descriptor, and says what it lacks."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import pytest
import torch

import fewstep as fs
from fewstep.calibration.scratch import scratch
from fewstep.errors import InputError


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_a_tensor_without_a_file(dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = scratch((3, 2, 5), dtype)
    made.copy_(torch.arange(30, dtype=dtype).view(3, 2, 5))
    assert made.dtype == dtype and float(made.sum()) == 435.0
    assert not list(tmp_path.iterdir())
    assert scratch((0, 3), dtype).shape == (0, 3)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted in /proc")
def test_no_file_descriptor_is_held():
    before = len(os.listdir("/proc/self/fd"))
    held = [scratch((4,), torch.float32) for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) <= before + 1 and len(held) == 50


PROGRAM = """
import resource, sys, torch
import fewstep as fs
from fewstep.errors import InputError
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
model = lambda x, t: 0.5 * torch.tanh(x)
grid = fs.grids.karras(fs.processes.VPLinear(), 3, end="zero")
try:
    fs.calibrate(model, fs.UniPC(2), grid, torch.randn(8, 64, 64, 64), num=8, reference_steps=6)
except InputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of file sizes is Linux's")
def test_a_disk_without_room_is_a_sentence():
    """Where a file may not grow as on a disk that is full, calibrate says so and the process lives."""
    code = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + PROGRAM
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "MiB are needed for temporary files in" in made.stdout and "TMPDIR" in made.stdout


def test_a_folder_that_is_not_there(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    with pytest.raises(InputError, match="MiB are needed.*/no/such/folder"):
        scratch((4,), torch.float32)
    assert fs.calibrate is not None


FEW_FILES = """
import resource, torch
import fewstep as fs
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
grid = fs.grids.karras(fs.processes.VPLinear(), 20, end="zero")
x_T = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
model = lambda x, t: 0.5 * torch.tanh(x)
settings = {"num": 8, "reference_steps": 40, "search": True, "budget": 0, "analytic": 0}
print(fs.calibrate(model, fs.UniPC(2), grid, x_T, **settings).plan.nfe)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of open files is a system's")
def test_a_search_at_twenty_steps_needs_few_files():
    made = subprocess.run([sys.executable, "-c", FEW_FILES], capture_output=True, text=True)
    assert made.stdout.strip() == "20", made.stderr

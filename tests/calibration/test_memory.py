"""Memory does not grow with the number of noises: what is kept of each lies in temporary files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import re, sys, torch
import fewstep as fs

class Predictor(fs.DataPredictor):
    process, shape, num_classes = fs.processes.VPLinear(), (16, 1024), None
    def __call__(self, x_t, t, cond=None):
        return 0.5 * torch.tanh(x_t)

torch.set_num_threads(1)
most = 0
def watch(stage, calls, best):
    global most
    status = open("/proc/self/status").read()
    most = max(most, int(re.search(r"RssAnon:\\s+(\\d+)", status).group(1)))

model = Predictor()
grid = fs.grids.karras(model.process, 3, end="zero")
fs.calibrate(model, fs.UniPC(2), grid, num=8, reference_steps=6, batch_size=4, progress=watch)
before = most
plan = fs.calibrate(model, fs.UniPC(2), grid, num=int(sys.argv[1]), reference_steps=6, batch_size=4, progress=watch)
print((most - before) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_noises():
    at_once = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # What is freed goes back to the system at once.
    words = [sys.executable, "-c", PROGRAM, "160"]
    made = subprocess.run(words, capture_output=True, text=True, check=True, env=at_once)
    assert int(made.stdout) < 10  # MiB; a state of 160 noises takes 10, and a dozen of them are kept.

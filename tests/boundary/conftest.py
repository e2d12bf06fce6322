"""What the tests at the boundary share: a folder with something of every kind in it, and a limit of the memory."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def limited():
    """What would fill the machine's memory is an error instead."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory) -> Path:
    """A small pipeline as a folder."""
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    network = diffusers.UNet2DModel(
        8, 1, 1, layers_per_block=1, block_out_channels=(4, 8), norm_num_groups=2, add_attention=False, **blocks
    )
    folder = tmp_path_factory.mktemp("made") / "pipeline"
    diffusers.DDPMPipeline(network, diffusers.DDPMScheduler()).save_pretrained(folder)
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch, pipeline_folder):
    """A folder with something of every kind in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "cache").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "damaged.json").write_text("{")
    shutil.copytree(pipeline_folder, tmp_path / "pipeline")
    pixels = np.random.default_rng(0)
    np.savez(tmp_path / "images.npz", images=pixels.integers(0, 255, (8, 28, 28, 1), np.uint8))
    np.savez(tmp_path / "small.npz", images=pixels.integers(0, 255, (4, 8, 8, 1), np.uint8))
    torch.jit.script(torch.nn.Flatten()).save(tmp_path / "features.pt")
    return tmp_path

"""What the tests of ``fewstep generate`` share: small models by their entry, the command, and folders compared."""

from __future__ import annotations

import os
import time
from pathlib import Path

import diffusers
import numpy as np
import torch
from typer.testing import CliRunner

import fewstep as fs
from fewstep.cli.app import app


def fewstep(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def loaded(folder: Path, labels: bool = True) -> tuple[np.ndarray, list[int], list[int]]:
    """All images, seeds and labels of a folder of shards."""
    parts = [np.load(path) for path in sorted(folder.glob("*.npz"))]
    images = np.concatenate([part["images"] for part in parts])
    return images, *(
        [int(n) for part in parts for n in part[name]] for name in ("seeds", "labels" if labels else "seeds")
    )


def same_files(one: Path, two: Path) -> None:
    assert sorted(os.listdir(one)) == sorted(os.listdir(two))
    for path in one.glob("*.npz"):
        assert path.read_bytes() == (two / path.name).read_bytes()


def tiny() -> fs.Denoiser:
    """A denoiser with a closed form, by way of ``--model module:function``."""
    process = fs.processes.VPLinear()
    return fs.Denoiser(lambda x, t: 0.3 * x.tanh(), process, "x0", shape=(1, 4, 4))


def broken() -> fs.Denoiser:
    return fs.Denoiser(lambda x, t: x * torch.nan, fs.processes.VPLinear(), "x0", shape=(1, 4, 4))


def slow() -> fs.Denoiser:
    """The first one, but each call takes its time."""

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        time.sleep(0.03)
        return 0.3 * x.tanh()

    return fs.Denoiser(network, fs.processes.VPLinear(), "x0", shape=(1, 4, 4))


def unet() -> fs.Denoiser:
    """A small UNet with random weights, each of whose calls takes SLOW seconds more."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    network = diffusers.UNet2DModel(
        8, 1, 1, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4, add_attention=False, **blocks
    ).eval()

    def slowed(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        time.sleep(float(os.environ.get("SLOW", 0)))
        return network(x, t).sample

    return fs.Denoiser(slowed, fs.processes.VPDiscrete.from_betas(), "v", shape=(1, 8, 8))


def counted() -> fs.Denoiser:
    """A nonlinear one with weights; its calls are counted in the file CALLS, and take SLOW seconds more."""

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.level = torch.nn.Parameter(torch.tensor(0.7), requires_grad=False)
            self.edge = torch.nn.Parameter(torch.linspace(-1, 1, 4)[None, :, None], requires_grad=False)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            _count()
            t = t.view(-1, 1, 1, 1)
            return torch.tanh(self.level * x / (0.2 + t) + self.edge * (1 + 0.3 * torch.sin(5 * t)))

    return fs.Denoiser(Network(), fs.processes.VPLinear(), "x0", shape=(1, 4, 4))


def counted_unet() -> fs.Denoiser:
    """A small UNet with random weights and skips, counted and slowed like ``counted``."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    network = diffusers.UNet2DModel(
        8, 1, 1, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4, add_attention=False, **blocks
    ).eval()
    network.register_forward_pre_hook(lambda *_: _count())
    return fs.Denoiser(network, fs.processes.EDM(), "edm", shape=(1, 8, 8))


def _count() -> None:
    time.sleep(float(os.environ.get("SLOW", 0)))
    if "CALLS" in os.environ:
        with open(os.environ["CALLS"], "ab", buffering=0) as file:
            file.write(b".")

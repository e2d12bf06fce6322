"""Small networks, files and tables for ``fewstep reproduce``: those of the package, made small."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fewstep import reproduction
from support import checkpoints
from support import skip_research_networks as research

RESOLUTION = 16
COUNT = 8


class TinyEDM(nn.Module):
    """What EDM's pickles hold: (x, σ, one-hot) → x0, with a UNet of EDM's class and attributes.

    Each call takes SLOW seconds more.
    """

    def __init__(self, network: nn.Module, label_dim: int = 0) -> None:
        super().__init__()
        self.model = network
        self.img_resolution, self.img_channels, self.label_dim = RESOLUTION, 3, label_dim
        self.sigma_min, self.sigma_max = 0.0, float("inf")
        self.levels = nn.Parameter(torch.linspace(-0.5, 0.5, max(label_dim, 1)))

    def forward(self, x, sigma, class_labels=None):
        time.sleep(float(os.environ.get("SLOW", "0")))
        sigma = sigma.reshape(-1, 1, 1, 1)
        c_in = (sigma**2 + 0.25).rsqrt()
        output = self.model(c_in * x, (sigma.log() / 4).flatten())
        if class_labels is not None:
            output = output + (class_labels @ self.levels).view(-1, 1, 1, 1)
        return 0.25 * c_in**2 * x + 0.5 * sigma * c_in * output


class Rows(nn.Module):
    """Features of an image: the mean of each row and channel, squared."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(3).flatten(1).square()


def edm(folder: Path, table: dict) -> None:
    """Write a pickle of EDM's kind: SongUNet on CIFAR-10 and AFHQv2, DhariwalUNet with classes on ImageNet."""
    classes = 10 if "imagenet" in table["network"]["file"] else 0
    torch.manual_seed(0)
    unet = research.DhariwalUNet(RESOLUTION) if classes else research.SongUNet(RESOLUTION)
    (folder / table["network"]["file"]).write_bytes(pickle.dumps({"ema": TinyEDM(unet, classes).eval()}))


def adm(folder: Path, table: dict) -> None:
    table["network"]["settings"] = asdict(checkpoints.ADM)
    torch.save(checkpoints.adm().state_dict(), folder / table["network"]["file"])


def score_sde(folder: Path, table: dict) -> None:
    table["network"]["settings"] = asdict(checkpoints.SCORE_SDE)
    checkpoints.score_sde(folder / table["network"]["file"])


def dit(folder: Path, table: dict) -> None:
    table["network"]["settings"] = asdict(checkpoints.DIT)
    checkpoints.dit(folder / table["network"]["file"])
    checkpoints.autoencoder(folder / table["network"]["autoencoder"])


def latent_diffusion(folder: Path, table: dict) -> None:
    table["network"]["settings"] = asdict(checkpoints.LATENT_DIFFUSION)
    checkpoints.latent_diffusion(folder / table["network"]["file"])


WRITERS = {"adm": adm, "dit": dit, "edm": edm, "latent-diffusion": latent_diffusion, "score-sde": score_sde}
"""By the kind of a network: what makes a table's network small, and writes its files."""


def small(name: str, folder: Path) -> dict:
    """Write a table of the package, made small, and all that it needs into ``folder``; return it.

    The published search for time steps takes seconds a row: the quick one is in its place.

    ``folder/table.json`` is the table, ``folder/weights`` holds its files, ``folder/rows.pt`` are features.
    """
    table = json.loads(reproduction.named(name).model_dump_json())
    weights = folder / "weights"
    weights.mkdir()
    table["resolution"] = RESOLUTION
    table["reference"]["name"] = f"small-{RESOLUTION}x{RESOLUTION}.npz"
    WRITERS[table["network"]["kind"]](weights, table)
    for row in table["rows"]:
        row["grid"] = row["grid"].replace(",method=trust-constr", "")
    for file in table["files"]:
        file["sha256"] = hashlib.sha256((weights / file["name"]).read_bytes()).hexdigest()
    real = np.random.default_rng(0).normal(size=(200, 3 * RESOLUTION)) ** 2
    np.savez(weights / table["reference"]["name"], mu=real.mean(0), sigma=np.cov(real, rowvar=False))
    example = torch.zeros(2, 3, RESOLUTION, RESOLUTION)
    torch.jit.save(torch.jit.trace(Rows(), example), folder / "rows.pt")
    write(folder, table)
    return table


def write(folder: Path, table: dict) -> None:
    (folder / "table.json").write_text(json.dumps(table))


def words(*more: object, out: str = "out") -> list[str]:
    """Return the command for a small table in the working directory."""
    fixed = ["reproduce", "table.json", "--weights", "weights", "--inception", "torchscript:rows.pt", "--out", out]
    return [*fixed, "--trust-pickle", "--num", str(COUNT), "--batch-size", "4", "--shard-size", "4", *map(str, more)]

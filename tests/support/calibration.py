"""A model, noises and settings for tests of calibrations."""

from __future__ import annotations

import torch

import fewstep as fs
from support.exact import GaussianMixture

PROCESSES = [
    fs.processes.VPLinear(),
    fs.processes.VPDiscrete.from_betas(),
    fs.processes.EDM(),
    fs.processes.RectifiedFlow(),
]
PROCESS = PROCESSES[0]
PLAIN = {"analytic": 0, "loss": "square"}


class Predictor(fs.DataPredictor):
    """The example mixture as a denoiser of known shape, with classes that shift it."""

    def __init__(self, process, num_classes=None, dtype=torch.float32):
        self.process, self.shape, self.num_classes = process, (2,), num_classes
        self.mixture = GaussianMixture.example(process)
        self.seen = []

    def __call__(self, x_t, t, cond=None):
        self.seen.append(cond)
        shift = 0.0 if cond is None else 0.1 * cond[:, None]
        return self.mixture(x_t.double() - shift, t).to(x_t.dtype) + shift


def noises(grid, num=64, dims=2):
    generator = torch.Generator().manual_seed(5)
    return float(grid.sigma[0]) * torch.randn(num, dims, dtype=torch.float64, generator=generator)

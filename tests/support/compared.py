"""Models for ``fewstep compare``: two classes of Gaussian data, whose data prediction is exact, and what is wrong."""

from __future__ import annotations

import torch

import fewstep as fs
from fewstep.models.model import Model

CALLS: list[int] = []
"""The number of samples of each network call."""


def smooth() -> fs.Denoiser:
    """Two classes of Gaussian data around −0.5 and 0.5, whose D is exact; calls are counted."""
    process = fs.processes.VPDiscrete.from_betas()

    def network(x, time, labels):
        CALLS.append(len(x))
        t = (time[0].double() + 1) / process.num_train_timesteps
        alpha, sigma = process.alpha(t), process.sigma(t)
        mean = (labels - 0.5).view(-1, 1, 1, 1)
        return mean + 0.04 * alpha / (0.04 * alpha**2 + sigma**2) * (x - alpha * mean)

    return fs.Denoiser(network, process, "x0", shape=(1, 28, 28), num_classes=2)


def spoilt() -> fs.Denoiser:
    """The same model, but at low noise it is not finite."""
    model = smooth()
    network = lambda x, time, labels: model.network(x, time, labels) / (time[0] > 200)  # noqa: E731
    return fs.Denoiser(network, model.process, "x0", shape=model.shape, num_classes=2)


def coloured() -> fs.Denoiser:
    """Three channels, which the embedded features do not take."""
    return fs.Denoiser(smooth().network, smooth().process, "x0", shape=(3, 28, 28), num_classes=2)


def led() -> Model:
    """The same model, whose classes are prompts: dogs are the second."""
    return Model(smooth(), embed=lambda prompts: {"labels": torch.tensor([int("dog" in text) for text in prompts])})

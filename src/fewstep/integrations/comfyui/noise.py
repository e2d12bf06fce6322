"""Noise for ComfyUI's samplers: one stream an image, whatever its batch, and another one in each stage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fewstep.executor import NoiseSource
from fewstep.executor.noise import STEPS

__all__ = ["image_seeds", "step_noise"]


def image_seeds(seed: int, own_seed: int, noise: Tensor | None, batch: int) -> list[int]:
    """Return a 64-bit seed for each image, from both seeds and a mark that tells the image from others of its batch.

    The mark is the image's initial noise, so that an image drawn alone by its place in the batch (a latent's
    ``batch_index``) is the same as within the batch. Without initial noise (DisableNoise) the mark is the place.
    """
    marks: list[list[int]] = [[place] for place in range(batch)]
    if noise is not None and noise.shape[0] == batch and bool(torch.count_nonzero(noise)):
        images = noise.detach().to("cpu", torch.float32).contiguous().numpy()
        marks = [list(np.frombuffer(hashlib.sha256(image.tobytes()).digest(), np.uint32)) for image in images]
    keys = [np.random.SeedSequence([seed % 2**64, own_seed, *map(int, mark)]) for mark in marks]
    return [int(key.generate_state(1, np.uint64)[0]) for key in keys]


def step_noise(x: Tensor, seeds: list[int], *, level: float | None, on_cpu: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a noise sampler for states like ``x``.

    Args:
        x: a state.
        seeds: one an image.
        level: the first σ of a stage that starts below the model's highest level, else None.
        on_cpu: whether to draw on the CPU, so that every machine has the same noise to the last bit, or where ``x`` is.
    """
    place = torch.device("cpu") if on_cpu else x.device
    source = NoiseSource(x.shape[0], place, seeds=seeds, stream=STEPS, level=level)

    def draw(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        noise = torch.empty(x.shape, dtype=torch.float32, device=place)
        source.fill(noise)
        return noise.to(x.device)

    return draw

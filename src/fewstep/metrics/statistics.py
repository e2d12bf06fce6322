"""The statistics of a set: the moments of its features, and a bounded sample of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fewstep.errors import InputError
from fewstep.metrics.extractor import Extractor
from fewstep.metrics.moments import Moments
from fewstep.metrics.pixels import from_uint8
from fewstep.storage import DAMAGE, write_arrays

__all__ = ["KEPT", "FeatureStatistics", "summarised"]

KEPT = 10_000
"""Features that are kept of a set, whatever its size: KID, PRDC and MMD look at these."""


@dataclass(frozen=True)
class FeatureStatistics:
    """The moments of all features, and up to ``KEPT`` of the features, float32 [m, d], drawn at random.

    The sample is in random order, so that its first ones are a random draw too, whatever the order of the images.
    ``sample`` is empty where only the moments are known.
    """

    moments: Moments
    sample: torch.Tensor

    def save(self, path: Path) -> None:
        """Write an npz that ``load`` and ``Moments.load`` read."""
        write_arrays(path, {**self.moments.arrays(), "sample": self.sample.numpy()})

    @classmethod
    def load(cls, path: Path) -> FeatureStatistics:
        """Return what ``save`` or ``Moments.save`` wrote, or the ``mu`` and ``sigma`` of pytorch-fid and EDM.

        Raises:
            InputError: if the file is missing or damaged.
        """
        moments = Moments.load(path)
        try:
            with np.load(path, allow_pickle=False) as data:
                sample = data["sample"] if "sample" in data else np.zeros((0, len(moments.mean)), np.float32)
        except DAMAGE as error:
            raise InputError(f"the statistics {str(path)!r} cannot be read ({error}): write them anew.") from error
        if sample.ndim != 2 or sample.shape[1] != len(moments.mean) or sample.dtype.kind not in "fiu":
            raise InputError(
                f"the statistics {str(path)!r} have features {sample.dtype} {sample.shape}: write them anew."
            )
        return cls(moments, torch.from_numpy(sample.astype(np.float32)))


def summarised(batches: Iterable[np.ndarray], extractor: Extractor, kept: int = KEPT) -> FeatureStatistics:
    """Return the summary of uint8 images [n, H, W, C], which come a batch at a time, in constant memory.

    Each feature gets a random number; those with the ``kept`` smallest stay, in the order of the numbers. These
    depend on an image's place alone, not on the batches.

    Raises:
        InputError: if the features do not take the images.
    """
    moments, random = Moments(extractor.tag), np.random.default_rng(0)
    sample: torch.Tensor | None = None
    ranks = np.zeros(0)
    for batch in batches:
        made = extractor(from_uint8(batch)).cpu()
        moments.update(made)
        sample = made if sample is None else torch.cat([sample, made])
        ranks = np.concatenate([ranks, random.random(len(made))])
        if len(ranks) > kept:
            stay = np.argpartition(ranks, kept)[:kept]
            sample, ranks = sample[torch.from_numpy(stay)], ranks[stay]
    if sample is None:
        raise InputError("there are no images to measure.")
    return FeatureStatistics(moments, sample[torch.from_numpy(np.argsort(ranks))])

"""The model's solution of other seeds: what a solver's samples should be drawn like."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fewstep.cli.compare.draws import Draws
from fewstep.cli.compare.solution import Solution
from fewstep.metrics import Extractor, Moments, from_uint8
from fewstep.metrics.pixels import kept

__all__ = ["Population"]


@dataclass(frozen=True)
class Population:
    """Samples of the model in many steps, of seeds that no cell has.

    The Fréchet distance to them is the solver's part of a sampler's distance; the rest is the model's.

    Attributes:
        solution: their images on disk.
        draws: their seeds.
        extractor: the features.
    """

    solution: Solution
    draws: Draws
    extractor: Extractor

    def moments(self) -> Moments:
        """Return the moments of their features.

        Raises:
            InputError: if the file of images is damaged.
        """
        images, found = self.solution.read(len(self.draws.seeds)), Moments(self.extractor.tag)
        for batch in range(self.draws.batches):
            pixels = kept(torch.from_numpy(images[self.draws.part(batch)].copy()))
            found.update(self.extractor(from_uint8(pixels)))
        return found

"""The samples of a comparison, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from fewstep.cli.compare.cells import Sampler
from fewstep.cli.compare.openings import Openings
from fewstep.models.model import Model

__all__ = ["Draws", "Progress"]

Progress = Callable[[int], Any]
"""Called with the number of network calls that were made, those of each sample counted."""


@dataclass(frozen=True)
class Draws:
    """What every cell is drawn from: the same seeds in the same batches.

    Attributes:
        model: what is sampled.
        seeds: of every cell.
        conditions: a class or a prompt for each seed, or None.
        batch_size: samples at a time.
    """

    model: Model
    seeds: list[int]
    conditions: Any
    batch_size: int
    openings: Openings = field(default_factory=Openings, init=False)

    @property
    def batches(self) -> int:
        """How many batches there are."""
        return -(-len(self.seeds) // self.batch_size)

    def drawn(
        self, sampler: Sampler, progress: Progress, batches: Sequence[int] | None = None, network: str = ""
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield the place of its first seed and the images [n, C, H, W] on the host, for each of ``batches`` (all).

        ``network`` says how the model's network is changed at the moment: others have no calls in common.
        """
        self.openings.begin()
        for batch in range(self.batches) if batches is None else batches:
            part = self.part(batch)
            model = replace(self.model, denoiser=self.openings.on(self.model.denoiser, network))
            yield part.start, sampler.draw(model, self.seeds[part], self.conditions and self.conditions[part]).cpu()
            progress(sampler.nfe * len(self.seeds[part]))

    def part(self, batch: int) -> slice:
        """Return the places of a batch's seeds."""
        return slice(batch * self.batch_size, min((batch + 1) * self.batch_size, len(self.seeds)))

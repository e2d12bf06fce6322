"""The interior times of a grid as numbers to search over: their λ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from fewstep.errors import InputError
from fewstep.time_grid import TimeGrid

__all__ = ["InteriorTimes", "resampled"]

CLOSEST = 0.03
"""The least distance of neighbouring times in λ."""


@dataclass(frozen=True)
class InteriorTimes:
    """The interior times of grids that share their ends with ``given``.

    Both ends stay; if the last is the noise-free end, the time before it is free like the others, up to
    ``highest``, the reference's last λ.
    """

    given: TimeGrid
    highest: float

    @property
    def lowest(self) -> float:
        """λ at which the search begins: the first time's, or t_max's if the grid starts at pure noise."""
        process, first = self.given.process, self.given.times[0]
        start = process.t_max if self.given.starts_at_pure_noise else first
        return float(process.half_logsnr(start))

    def read(self, grid: TimeGrid) -> Tensor:
        """Return λ of the interior times."""
        return grid.half_logsnr[1:-1].clone()

    def grid(self, interior: Tensor) -> TimeGrid | None:
        """Return the grid with these interior λ, or None if they are too close to each other or to the ends."""
        between = [self.lowest, *interior.tolist(), *([] if self.given.ends_at_zero else [self._end])]
        if any(b - a < CLOSEST for a, b in zip(between, between[1:], strict=False)):
            return None
        if self.given.ends_at_zero and between[-1] > self.highest:
            return None
        inner = self.given.process.time(interior)
        return TimeGrid(self.given.process, torch.cat([self.given.times[:1], inner, self.given.times[-1:]]))

    def holds(self, grid: TimeGrid) -> bool:
        """Whether ``grid`` is one that ``grid(read(…))`` can return: its interior times are far enough apart."""
        return self.grid(self.read(grid)) is not None

    def family(self, last: float, bend: float) -> TimeGrid | None:
        r"""Return λ(u) = λ_first + (λ_last − λ_first)·(e^{bend·u} − 1)/(e^{bend} − 1), u even in [0, 1].

        ``last`` is how far before the highest λ the last finite time lies, for grids that end at the noise-free end.
        A bend of 0 is even in λ; below 0 the steps shrink towards the data.
        """
        finite = self.given.steps - int(self.given.ends_at_zero)
        stop = self.highest - last if self.given.ends_at_zero else self._end
        u = torch.linspace(0.0, 1.0, finite + 1, dtype=torch.float64)
        curve = u if bend == 0 else torch.expm1(bend * u) / torch.expm1(torch.tensor(bend, dtype=torch.float64))
        half_logsnr = self.lowest + (stop - self.lowest) * curve
        return self.grid(half_logsnr[1:] if self.given.ends_at_zero else half_logsnr[1:-1])

    @property
    def _end(self) -> float:
        return float(self.given.half_logsnr[-1])


def resampled(grid: TimeGrid, steps: int) -> TimeGrid:
    """Return ``grid`` with another number of steps: λ over the number of the time is interpolated, both ends stay."""
    if steps == grid.steps:
        return grid
    half_logsnr, process = grid.half_logsnr, grid.process
    inner = half_logsnr[torch.isfinite(half_logsnr)]
    ends = int(grid.ends_at_zero) + int(grid.starts_at_pure_noise)
    if steps - ends < 0:
        raise InputError(f"a grid of {grid.steps} steps cannot be read as one of {steps}: give one of {steps} steps.")
    if len(inner) < 2:  # Nothing to interpolate between: even in λ, on to t_min.
        lowest, highest = (float(process.half_logsnr(t)) for t in (process.t_max, process.t_min))
        start = lowest if grid.starts_at_pure_noise or not len(inner) else float(inner[0])
        curve = np.linspace(start, highest, steps - ends + 2)[:-1]
    else:
        place = np.linspace(0.0, len(inner) - 1.0, steps - ends + 1)
        curve = PchipInterpolator(np.arange(len(inner)), inner.numpy())(place)
    times = process.time(torch.from_numpy(curve))
    first = grid.times[:1] if grid.starts_at_pure_noise else grid.times[:0]
    last = grid.times[-1:] if grid.ends_at_zero else grid.times[:0]
    made = torch.cat([first, times, last])
    made[0], made[-1] = grid.times[0], grid.times[-1]
    return TimeGrid(process, made)

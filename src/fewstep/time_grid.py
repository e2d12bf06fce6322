"""The time grid: falling times of one process, from noise to data."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fewstep import processes
from fewstep.checks import shown
from fewstep.errors import InputError
from fewstep.processes import Process, VPDiscrete
from fewstep.processes.base import as_process, on_host
from fewstep.storage import Plain, Schema, Stored, json_text, parsed

__all__ = ["StoredTimes", "TimeGrid", "as_grid"]

FORMAT = "fewstep-grid/1"
SHOWN = 11
"""Times printed at most."""
CLOSEST = 1e-10
"""The least distance between the λ of neighbours, relative to the larger of |λ| and 1."""
StoredTimes = list[float] | list[list[float]] | list[list[list[float]]]
"""The times of a grid, or of a batch of grids, in JSON."""


class _StoredGrid(Schema):
    process: Plain
    times: StoredTimes


class TimeGrid(Stored):
    r"""N + 1 falling times of a process, from noise to data.

    The last time may be 0, the noise-free end (λ = ∞); the first may be one with α = 0 (λ = −∞), as a
    flow's t = 1. ``times`` may have leading batch dimensions, [..., N + 1]: a batch of grids, of which all or none
    end (start) so.

    Args:
        process: the process whose times these are.
        times: a sequence, array or tensor; copied to a float64 tensor on the CPU.

    Raises:
        InputError: if there are fewer than two times, one is no finite number or outside [0, ``process.t_limit``],
            they do not fall strictly, or two are within rounding of each other in λ; or if grids of a batch have ends
            of both kinds.
    """

    @on_host
    def __init__(self, process: Process, times: Any) -> None:
        self.process = as_process(process)
        self.times = _checked(process, times)
        size = self.half_logsnr.abs()
        least = CLOSEST * (1.0 + torch.minimum(size[..., :-1], size[..., 1:]))
        close = ~(self.half_logsnr.diff(dim=-1) > least)
        if bool(close.any()):
            first = self.times[..., :-1][close][0]
            raise InputError(
                f"two times of the grid lie within rounding of each other, at {float(first):.17g}: take times that are "
                "further apart; a grid made by joining lists often has such ones."
            )
        infinite = torch.isinf(self.half_logsnr[..., [0, -1]]).reshape(-1, 2)
        if bool((infinite != infinite[:1]).any()):
            raise InputError(
                "some grids of the batch end at t = 0 (or start at α = 0) and others do not, so that their plans have "
                "different rows: make two batches."
            )

    @property
    def steps(self) -> int:
        """The number of intervals N."""
        return self.times.shape[-1] - 1

    @cached_property
    def alpha(self) -> Tensor:
        """α at the times, float64 [..., N + 1]."""
        return self.process.alpha(self.times)

    @cached_property
    def sigma(self) -> Tensor:
        """σ at the times, float64 [..., N + 1]."""
        return self.process.sigma(self.times)

    @cached_property
    def half_logsnr(self) -> Tensor:
        """λ = log(α/σ) at the times, rising, float64 [..., N + 1]."""
        return self.process.half_logsnr(self.times)

    @cached_property
    def ends_at_zero(self) -> bool:
        """Whether the last time is the noise-free end."""
        return bool(torch.isinf(self.half_logsnr[..., -1]).all())

    @cached_property
    def starts_at_pure_noise(self) -> bool:
        """Whether the first time has α = 0, so that λ = −∞."""
        return bool(torch.isinf(self.half_logsnr[..., 0]).all())

    @on_host
    def on_training_steps(self) -> TimeGrid:
        """Return the grid with each time moved to the nearest training step; the noise-free end stays.

        It is what a network that looks its time up needs (``fs.Denoiser(…, integer_times=True)``).

        Raises:
            InputError: if the process has no training steps, or two times come to lie on one.
        """
        if not isinstance(self.process, VPDiscrete):
            raise InputError(f"{self.process!r} has no training steps: only those of fs.processes.VPDiscrete have.")
        count = len(self.process.alphas_cumprod)
        moved = (self.times * count).round().clamp(min=1.0, max=count) / count
        moved = torch.where(self.times == 0.0, self.times, moved)
        if not bool((moved.diff(dim=-1) < 0).all()):
            raise InputError(
                f"two times of the grid lie on one of the {count} training steps: {_shown(self.times * count)}; take "
                "fewer steps."
            )
        return TimeGrid(self.process, moved)

    def to_json(self) -> str:
        """Return the grid as JSON; ``from_json`` gives the same grid back, bit for bit."""
        return json_text({"format": FORMAT, "process": self.process.to_dict(), "times": self.times.tolist()})

    @classmethod
    def from_json(cls, text: str) -> TimeGrid:
        """Return the grid that ``to_json`` wrote.

        Raises:
            InputError: if the text is not such a grid, or its times are wrong.
        """
        data = parsed(text, {FORMAT: _StoredGrid}, "the grid")
        return TimeGrid(processes.from_dict(data.process), data.times)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TimeGrid) and self.process == other.process and torch.equal(self.times, other.times)

    def __hash__(self) -> int:
        return hash((self.process, tuple(self.times.flatten().tolist())))

    def __repr__(self) -> str:
        return f"TimeGrid({self.process!r}, {[float(f'{t:.6g}') for t in self.times.flatten()]})"

    def __str__(self) -> str:
        if self.times.ndim > 1:
            return f"a batch of {tuple(self.times.shape[:-1])} grids of {self.steps} steps of {self.process!r}"
        ends = ["from pure noise"] * self.starts_at_pure_noise + ["to the noise-free end"] * self.ends_at_zero
        lines = [f"{self.steps} step{'s' * (self.steps > 1)} of {', '.join([repr(self.process), *ends])}"]
        columns = [("time", self.times), ("σ/α", (-self.half_logsnr).exp()), ("λ", self.half_logsnr)]
        for name, values in columns:
            cells = [f"{value:.4g}" for value in values.tolist()]
            if len(cells) > SHOWN:
                cells = [*cells[: SHOWN - 4], "…", *cells[-3:]]
            lines.append(f"{name:<5}" + "".join(f"{cell:>10}" for cell in cells))
        return "\n".join(lines)


def as_grid(value: Any) -> TimeGrid:
    """Return ``value`` if it is a grid.

    Raises:
        InputError: if it is not.
    """
    if not isinstance(value, TimeGrid):
        raise InputError(f"grid is {shown(value)}: give a TimeGrid, such as fs.grids.karras(process, steps=8).")
    return value


def _checked(process: Process, given: Any) -> Tensor:
    """Return a copy of the given times as a tensor, if they can be a grid of ``process``."""
    if isinstance(given, Tensor) and (given.is_complex() or given.is_meta):
        raise InputError(f"times is {shown(given)}: give real numbers that are in memory.")
    try:
        times = torch.as_tensor(given, dtype=torch.float64).to(device="cpu", copy=True)
    except (OverflowError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"times is {shown(given)}: give a sequence of numbers, such as [1.0, 0.5, 0.1].") from error
    if times.ndim < 1 or times.shape[-1] < 2:
        raise InputError(f"times has shape {tuple(times.shape)}: a grid needs at least two times, noise to data.")
    if not bool(torch.isfinite(times).all()):
        raise InputError(f"times are {_shown(times)}: each must be a finite number.")
    if not bool((times.diff(dim=-1) < 0).all()):
        raise InputError(
            f"times are {_shown(times)}: they must fall strictly, from noise to data; sort them downwards "
            "and drop repeated ones. To run from data towards noise give the falling grid to fs.invert."
        )
    if bool((times[..., -1] < 0).any()) or bool((times[..., 0] > process.t_limit).any()):
        raise InputError(
            f"times run from {_shown(times)[0]} to {float(times.min()):.6g}: {process!r} is defined between 0 "
            f"and {process.t_limit:g}."
        )
    return times


def _shown(times: Tensor) -> list[float]:
    """Return the first of ``times`` for a message."""
    return [float(f"{t:.6g}") for t in times.flatten()[:12]]

"""ρ as a function of the network's time: a table made once, looked up on the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fewstep.errors import InputError
from fewstep.processes import Process
from fewstep.processes.base import HOST, on_host
from fewstep.skip.profile import Profile

__all__ = ["FactorTable"]

EDGE = 1e-5
"""Half the width of a jump, in log(σ/α): wide enough for float32 times on the edge, too narrow to meet by chance."""
FINEST = 0.02
"""The longest step in log(σ/α) over which ρ is taken as linear in the network's time."""


class FactorTable:
    """The factors of all skips as a function of the network's time, linear between knots.

    The map σ/α → t → network time is taken once, in float64 on the host; a call is a search among the knots
    on the time's own device, without a synchronisation. What is found is a line: the knot before, ρ there and
    its slopes. Before the first knot and after the last one, ρ is what it is there.

    Args:
        profile: one with a ``sigma_window`` or a ``sigma_weight``.
        factors: ρ of every skip where the weight is 1.
        process: the process of the network.
        network_time: the map from t to what the network is fed; must be monotonic.

    Raises:
        InputError: if the network's time is not finite, or does not move one way along the noise level.
    """

    @on_host
    def __init__(
        self, profile: Profile, factors: Sequence[float], process: Process, network_time: Callable[[Tensor], Tensor]
    ) -> None:
        points = torch.tensor(_log_points(profile), dtype=torch.float64)
        times = network_time(process.time(-points[:, 0])).to(torch.float64).cpu()
        if not bool(torch.isfinite(times).all()):
            raise InputError(
                f"some noise levels of the profile have no finite time in {process!r}: take σ/α within the process."
            )
        if bool((times.diff() < 0).any()):
            times, points = times.flip(0), points.flip(0)
        if bool((times.diff() < 0).any()):
            raise InputError("network_time rises and falls along the noise level: give a monotonic function of t.")
        rows = 1.0 + points[:, 1:] * (torch.tensor(factors, dtype=torch.float64) - 1.0)
        slopes = torch.zeros_like(rows)
        slopes[1:] = rows.diff(dim=0) / times.diff().clamp(min=1e-30)[:, None]
        before = torch.arange(-1, len(times) - 1).clamp(min=0)
        self._placed = {HOST: (times, torch.cat([times[before, None], rows[before], slopes], dim=1))}

    def put(self, other: FactorTable) -> None:
        """Become equal to ``other``, in place where the shapes allow it."""
        for device, held in self._placed.items():
            made = _moved(other._placed[HOST], device)
            if held[1].shape == made[1].shape:
                held[0].copy_(made[0])
                held[1].copy_(made[1])
            else:
                self._placed[device] = made

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return times and lines on ``device``, copied there once: replicas of a network have their own."""
        if device not in self._placed:
            with torch.inference_mode(False):
                self._placed[device] = _moved(self._placed[HOST], device)
        return self._placed[device]

    def __call__(self, time: Tensor) -> Tensor:
        """Return the factors [k, skips] at the network times ``time`` [k]."""
        times, lines = self.on(time.device)
        time = time.to(times.dtype).clamp(times[0], times[-1])
        line = lines.index_select(0, torch.bucketize(time, times))
        start, row, slope = line.tensor_split((1, 1 + line.shape[1] // 2), dim=1)
        return torch.addcmul(row, slope, time[:, None] - start)


def _moved(table: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return a table on ``device``; without float64 there, in float32."""
    dtype = torch.float32 if device.type == "mps" else torch.float64
    times, lines = table
    return times.to(device, dtype), lines.to(device, dtype)


def _log_points(profile: Profile) -> list[tuple[float, float]]:
    """Return the weight as points (log σ/α, w), rising, no more than ``FINEST`` apart where w changes."""
    if profile.sigma_window is None:
        assert isinstance(profile.sigma_weight, tuple)
        points = [(math.log(s), w) for s, w in profile.sigma_weight]
    else:
        fall, points = max(profile.ramp, 2 * EDGE), []
        low, high = profile.sigma_window
        if low is not None:
            inside = math.log(low) - EDGE
            points += [(inside - fall, 0.0), (inside, 1.0)]
        if high is not None:
            inside = math.log(high) + EDGE
            points += [(inside, 1.0), (inside + fall, 0.0)]
        points = points or [(0.0, 1.0)]
    refined = points[:1]
    for (x, w), (next_x, next_w) in zip(points, points[1:], strict=False):
        parts = math.ceil((next_x - x) / FINEST) if w != next_w else 1
        refined += [(x + (next_x - x) * i / parts, w + (next_w - w) * i / parts) for i in range(1, parts + 1)]
    return refined

"""The variables of the time-step optimiser: the steps in λ, within their limits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fewstep.processes import Process

__all__ = ["Placement"]

WHOLE = 1.0 - 1e-3
"""The share of the range that a start covers at most, so that its logit can move in both directions."""
EXTREME = 10.0
"""The limit of that logit."""


class Placement:
    """Grids by their steps in λ, as variables x [B, n] ↔ times [B, N + 1]; fixed times are exact.

    x holds log h of each step h, which add up to the whole range of λ. Grids to the noise-free end have one step
    fewer and one more variable, the logit of the share of the range that they cover. ``longest`` is the longest step
    that the default method takes to a fixed end: 2.1 times the mean below 10 steps, which lets every bound come below
    the published method's, and from 10 on 1.5 times but at least 1.5; for the last step 2.3 times. To the noise-free
    end it is 1.8 times the mean of the whole range, with 2.3 times for the last, but at most 3.4, or 1.4 times the mean
    if that is more: methods without a corrector do not forgive longer ones.
    """

    def __init__(self, process: Process, steps: int, start: float, last: float, to_zero: bool) -> None:
        self.process, self.to_zero, self.start, self.last = process, to_zero, start, last
        self.intervals = steps - 1 if to_zero else steps
        self.first = float(process.half_logsnr(start))
        self.range = float(process.half_logsnr(last)) - self.first
        self.free = self.intervals if to_zero else self.intervals - 1
        mean = self.range / max(self.intervals, 1)
        if to_zero:
            self.longest, self.longest_last = (max(1.4 * mean, min(factor * mean, 3.4)) for factor in (1.8, 2.3))
        else:
            self.longest, self.longest_last = 2.1 * mean if steps < 10 else max(1.5, 1.5 * mean), 2.3 * mean

    def variables(self, times: Tensor) -> np.ndarray:
        """Return x of ``times`` [B, N + 1]."""
        h = self.steps(times)
        if not self.to_zero:
            return np.log(h)
        share = np.minimum(h.sum(-1, keepdims=True) / self.range, WHOLE)
        return np.concatenate([np.log(h), np.log(share / (1.0 - share))], axis=1)

    def times(self, x: np.ndarray) -> Tensor:
        """Return the times of ``x``, which must be allowed (see ``project``)."""
        return self.times_of_steps(np.exp(x[:, : self.intervals]))

    def times_of_steps(self, h: np.ndarray) -> Tensor:
        """Return the times of steps ``h`` [B, n]."""
        logsnr = self.first + np.concatenate([np.zeros((len(h), 1)), h.cumsum(1)], axis=1)
        times = self.process.time(torch.from_numpy(logsnr))
        times[:, 0] = self.start
        if self.to_zero:
            return torch.cat([times, torch.zeros(len(h), 1, dtype=torch.float64)], dim=1)
        times[:, -1] = self.last
        return times

    def steps(self, times: Tensor) -> np.ndarray:
        """Return the steps in λ of ``times`` [B, N + 1], without one to the noise-free end."""
        logsnr = self.process.half_logsnr(times[:, :-1] if self.to_zero else times)
        return logsnr.diff(dim=-1).numpy()

    def project(self, x: np.ndarray) -> np.ndarray:
        """Return x whose steps are at least a hundredth of the mean, at most the longest, and of the right sum."""
        logit = np.clip(x[..., self.intervals :], -EXTREME, EXTREME)
        total = self.range / (1.0 + np.exp(-logit)) if self.to_zero else self.range
        log_h = x[..., : self.intervals]
        h = np.exp(log_h - log_h.max(-1, keepdims=True))
        h = np.maximum(h / h.sum(-1, keepdims=True), 1e-2 / self.intervals)
        h *= total / h.sum(-1, keepdims=True)
        limit = np.append(np.full(self.intervals - 1, self.longest), self.longest_last)
        for _ in range(8):
            h = np.minimum(h, limit)
            loose = h < limit
            missing = total - np.where(loose, 0.0, h).sum(-1, keepdims=True)
            h = np.where(loose, h * missing / np.where(loose, h, 0.0).sum(-1, keepdims=True), h)
        return np.concatenate([np.log(h), logit], axis=-1)

"""The reference: a fine solution for every noise, and its state at any time in between."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.calibration.network import CountedNetwork
from fewstep.calibration.scratch import scratch
from fewstep.executor import execute
from fewstep.solvers import UniPC
from fewstep.solvers.adams import Intervals, adams
from fewstep.time_grid import TimeGrid

__all__ = ["Reference", "reference_grid"]

NEIGHBOURS = 2
"""Nodes on either side through which D is interpolated."""
BLOCK = 8
"""States interpolated at a time."""


class Reference:
    r"""The trajectories of a fine high-order plan, with dense output.

    Between two nodes the state is the exact step from the earlier one, with D the polynomial in λ through the
    predictions at the four nodes around: x_t = (σ_t/σ_s)·x_s + α_t·∫ e^{λ − λ_t}·D dλ. It costs no network call, so
    one reference serves every grid that is tried.

    States and predictions lie in a temporary file that the system may keep in memory or not.
    """

    def __init__(self, grid: TimeGrid, states: Tensor, data: Tensor) -> None:
        self.grid, self._states, self._data = grid, states, data
        self._weights: dict[float, _Dense] = {}

    @classmethod
    def solve(cls, network: CountedNetwork, grid: TimeGrid, x_T: Tensor) -> Reference:
        """Run the fine plan on ``grid`` from the noises ``x_T`` [num, …] on the host."""
        plan = UniPC(order=3, variant="exact").plan(grid)
        dtype = torch.promote_types(x_T.dtype, torch.float32)
        states = scratch((plan.steps + 1, *x_T.shape), dtype)
        data = scratch((plan.steps, *x_T.shape), dtype)
        states[0] = x_T
        for which in network.blocks(torch.arange(len(x_T))):

            def record(step: int, t: Tensor, x_t: Tensor, x0: Tensor, which: Tensor = which) -> None:
                states[step + 1, which], data[step, which] = x_t.cpu(), x0.to(device="cpu", dtype=dtype)

            execute(plan, network.bound(which), x_T[which].to(network.device), callback=record)
        return cls(grid, states, data)

    @property
    def end(self) -> Tensor:
        """The final states [num, …]."""
        return self._states[-1]

    def errors(self, ends: Tensor, which: Tensor) -> Tensor:
        """Return the mean square error of final states [n, …] of the noises ``which``, float64 [n]; one at a time."""
        pairs = zip(ends, which.tolist(), strict=True)
        squared = [float((end - self.end[noise]).double().square().mean()) for end, noise in pairs]
        return torch.tensor(squared, dtype=torch.float64)

    def node(self, n: int, which: Tensor) -> Tensor:
        """Return the states of the noises ``which`` at the grid's time n, [len(which), …]."""
        return self._states[n][which]

    def data(self, n: int, which: Tensor) -> Tensor:
        """Return D of the noises ``which`` at the grid's time n, [len(which), …]."""
        return self._data[n][which]

    def state(self, t: float, which: Tensor) -> Tensor:
        """Return the states of the noises ``which`` at time ``t``, [len(which), …]."""
        if t not in self._weights:
            self._weights[t] = self._dense(t)
        dense = self._weights[t]
        state = scratch((len(which), *self._states.shape[2:]), self._states.dtype)
        for place in torch.arange(len(which)).split(BLOCK):
            part = dense.state * self._states[dense.node][which[place]]
            for node, weight in dense.data:
                part.add_(self._data[node][which[place]], alpha=weight)
            state[place] = part
        return state

    def prediction(self, t: float, which: Tensor) -> Tensor:
        """Return D of the noises ``which`` at time ``t``, [len(which), …]: the polynomial in λ through four nodes."""
        node = int((self.grid.times > t).sum()) - 1
        nodes = self._around(max(node, 0))
        half_logsnr = self.grid.half_logsnr[nodes]
        place = self.grid.process.half_logsnr(torch.tensor(t, dtype=torch.float64))
        made = torch.zeros(len(which), *self._data.shape[2:], dtype=self._data.dtype)
        for k, here in zip(nodes, half_logsnr, strict=True):
            others = half_logsnr[half_logsnr != here]
            weight = float(((place - others) / (here - others)).prod()) if len(others) else 1.0
            made.add_(self._data[k][which], alpha=weight)
        return made

    def _around(self, node: int) -> list[int]:
        """Return the nodes through which D is interpolated after ``node``."""
        # The noise-free end has no prediction, and pure noise no finite λ to interpolate from.
        usable = [
            k
            for k in range(node - NEIGHBOURS + 1, node + NEIGHBOURS + 1)
            if 0 <= k < self.grid.steps and (k == node or bool(torch.isfinite(self.grid.half_logsnr[k])))
        ]
        return usable if bool(torch.isfinite(self.grid.half_logsnr[node])) else [node]

    def _dense(self, t: float) -> _Dense:
        times = self.grid.times
        nearest = int((times - t).abs().argmin())
        if abs(float(times[nearest]) - t) <= 1e-12 * max(t, 1e-12):
            return _Dense(nearest, 1.0, ())
        node = int((times > t).sum()) - 1
        usable = self._around(node)
        before = [k for k in usable if k <= node]
        local = TimeGrid(
            self.grid.process,
            [*times[before].tolist(), t, *times[[k for k in usable if k > node]].tolist()],
        )
        here = torch.tensor([len(before) - 1])
        row = adams(
            Intervals(local, here, torch.zeros(1, dtype=torch.float64)), [k - node + int(k > node) for k in usable]
        )
        return _Dense(node, float(row.state_weight), tuple(zip(usable, row.history_weights[0].tolist(), strict=True)))


@dataclass(frozen=True)
class _Dense:
    """State = ``state``·(state at ``node``) + Σ weight·(prediction at a node)."""

    node: int
    state: float
    data: tuple[tuple[int, float], ...]


def reference_grid(grid: TimeGrid, steps: int) -> TimeGrid:
    """Return the fine grid, even in λ, with the ends of ``grid``; from pure noise, its first step goes to t_max."""
    process = grid.process
    first = float(grid.times[0])
    pure = grid.starts_at_pure_noise
    last = min(process.t_min, float(grid.times[-2])) if grid.ends_at_zero else float(grid.times[-1])
    start = max(process.t_max, float(grid.times[1])) if pure else first
    inner = steps - int(grid.ends_at_zero) - int(pure)
    ends = process.half_logsnr(torch.tensor([start, last], dtype=torch.float64))
    times = process.time(torch.linspace(float(ends[0]), float(ends[1]), inner + 1, dtype=torch.float64))
    times[0], times[-1] = start, last
    return TimeGrid(process, [first] * pure + times.tolist() + [0.0] * grid.ends_at_zero)

"""The first network calls from each noise, which the cells of a comparison share."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import torch
from torch import Tensor

from fewstep.denoiser import Condition, DataPredictor
from fewstep.guidance import Wrapped

__all__ = ["Openings"]

CALLS = 2
"""Calls of a draw that others may have in common; later ones differ between solvers."""
LIMIT = 2**30
"""Bytes of predictions to keep, on the host."""


class Openings:
    """Keeps D of the first two calls of each draw, so that a cell that begins like another one does not ask again.

    From the same noise every sampler asks for D(x_T, t_max) first. Those on one grid agree on the second call too:
    a multistep method begins with a step of first order. States are told apart bit by bit, so a cell's samples are
    those that it would have alone, in the same batches.

    Cells ask in the same order, batch after batch: what was asked for longest ago is what is asked for next. So where
    there is no room, only what neither this cell nor the one before asked for gives way, and else nothing more is kept.

    Args:
        limit: bytes to keep at most.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit, self.kept, self.cell = limit, 0, 0
        self.known: OrderedDict[str, tuple[Tensor, int]] = OrderedDict()

    def begin(self) -> None:
        """Say that the draws of another cell begin."""
        self.cell += 1

    def on(self, denoiser: DataPredictor, network: str = "") -> DataPredictor:
        """Return ``denoiser`` for one draw; a state must always come with the same condition.

        One that remembers earlier calls must be called each time. Calls of another ``network`` are other calls.
        """
        return denoiser if denoiser.remembers else _Opening(denoiser, self, network)

    def ask(self, denoiser: DataPredictor, x_t: Tensor, t: Tensor, cond: Condition, network: str) -> Tensor:
        """Return D(x_t, t), from memory where it is known."""
        state = x_t.detach().cpu().contiguous().view(torch.uint8).numpy()
        place = f"{network} {tuple(x_t.shape)} {x_t.dtype} {float(t)!r}"
        key = f"{place} {hashlib.sha256(state.tobytes()).hexdigest()}"
        if key in self.known:
            prediction, _ = self.known.pop(key)
            self.known[key] = prediction, self.cell
            return prediction.to(x_t.device)
        prediction = denoiser(x_t, t, cond)
        if self._room(prediction.nbytes):
            self.known[key] = prediction.detach().cpu().clone(), self.cell
            self.kept += prediction.nbytes
        return prediction

    def _room(self, size: int) -> bool:
        """Make room for ``size`` bytes, if what is out of use takes as much."""
        while self.kept + size > self.limit and self.known:
            oldest, (prediction, asked) = next(iter(self.known.items()))
            if asked >= self.cell - 1:
                return False
            del self.known[oldest]
            self.kept -= prediction.nbytes
        return self.kept + size <= self.limit


class _Opening(Wrapped):
    """A denoiser whose first calls go through the memory."""

    def __init__(self, inner: DataPredictor, openings: Openings, network: str) -> None:
        super().__init__(inner)
        self.openings, self.network, self.calls = openings, network, 0

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition = None) -> Tensor:
        """Return D(x_t, t)."""
        self.calls += 1
        if self.calls > CALLS:
            return self.inner(x_t, t, cond)
        return self.openings.ask(self.inner, x_t, t, cond, self.network)

"""The layout of a pipeline's state: its ``latents`` as they reach its scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Drawn", "Layout", "layout_of"]

DIGIT = 7
"""Bits of an index that half-precision latents carry exactly."""


@dataclass(frozen=True)
class Layout:
    """Latents [batch, *shape] of a state: value i of the state lies at ``places[i]``; None where they are the same."""

    shape: tuple[int, ...]
    places: Tensor | None = None

    def latents_of(self, state: Tensor) -> Tensor:
        """Return the latents that a pipeline packs into ``state`` [batch, …]."""
        if self.places is None:
            return state
        latents = torch.empty_like(state).reshape(len(state), -1)
        latents[:, self.places.to(state.device)] = state.reshape(len(state), -1)
        return latents.reshape(len(state), *self.shape)


def layout_of(like: Tensor, drawn: Iterable[tuple[int, ...]], send: Callable[[Tensor], Tensor | None]) -> Layout | None:
    """Return how latents are packed into states shaped like ``like`` [1, …]; None if what is given does not arrive.

    Pipelines take latents packed already, or as they draw them and pack them themselves: then each place is sent
    through, in digits that half precision holds.

    Args:
        like: a state.
        drawn: shapes of noise that the pipeline drew for it.
        send: latents to the state that arrives at the scheduler; None if the pipeline refuses them.
    """
    shapes = [tuple(shape[1:]) for shape in drawn if shape[:1] == (1,) and torch.Size(shape).numel() == like.numel()]
    same = Layout(tuple(like.shape[1:]))
    if _arrives(same, like, send):
        return same
    for shape in dict.fromkeys(shapes):
        layout = _unpacking(shape, like, send)
        if layout is not None and _arrives(layout, like, send):
            return layout
    return None


def _arrives(layout: Layout, like: Tensor, send: Callable[[Tensor], Tensor | None]) -> bool:
    state = torch.randn(like.shape, generator=torch.Generator().manual_seed(1)).to(like)
    arrived = send(layout.latents_of(state))
    return arrived is not None and arrived.shape == state.shape and torch.equal(arrived, state)


def _unpacking(shape: tuple[int, ...], like: Tensor, send: Callable[[Tensor], Tensor | None]) -> Layout | None:
    count = like.numel()
    places, index = torch.zeros(count, dtype=torch.long), torch.arange(count)
    for shift in range(0, max(count - 1, 1).bit_length(), DIGIT):
        digits = (index >> shift) & (2**DIGIT - 1)
        arrived = send(digits.reshape(1, *shape).to(like))
        if arrived is None or arrived.numel() != count:
            return None
        places |= arrived.flatten().round().long().cpu() << shift
    return Layout(shape, places) if torch.equal(places.sort().values, index) else None


class Drawn(TorchFunctionMode):
    """The shapes of all that ``torch.randn`` draws meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func is torch.randn:
            self.shapes.append(tuple(made.shape))
        return made

"""What a solver is: a thing that looks at a grid and writes a plan."""

from __future__ import annotations

from abc import ABC, abstractmethod

from fewstep.errors import InputError
from fewstep.grids import TimeGrid
from fewstep.plan import Plan

__all__ = ["Solver", "checked_order"]


class Solver(ABC):
    """A training-free sampler. It knows no images, devices, dtypes, guidance or seeds."""

    @abstractmethod
    def plan(self, grid: TimeGrid) -> Plan:
        """Return the table for ``grid``; a batch of grids gives a batch of plans."""


def checked_order(name: str, order: int, low: int, high: int) -> int:
    """Return ``order`` if it is a whole number from ``low`` to ``high``."""
    if isinstance(order, bool) or order not in range(low, high + 1):
        raise InputError(f"{name} is {order!r}: give a whole number from {low} to {high}.")
    return int(order)

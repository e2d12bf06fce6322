"""What a solver is: a thing that looks at a grid and writes a plan."""

from __future__ import annotations

from abc import ABC, abstractmethod
from numbers import Integral

from fewstep.errors import InputError
from fewstep.plan import Plan
from fewstep.time_grid import TimeGrid

__all__ = ["Solver", "check_order"]


class Solver(ABC):
    """A training-free sampler. It knows no images, devices, dtypes, guidance or seeds."""

    @abstractmethod
    def plan(self, grid: TimeGrid) -> Plan:
        """Return the table for ``grid``; a batch of grids gives a batch of plans."""


def check_order(name: str, order: int, low: int, high: int) -> None:
    """Raise ``InputError`` unless ``order`` is a whole number from ``low`` to ``high``."""
    if isinstance(order, bool) or not isinstance(order, Integral) or order not in range(low, high + 1):
        raise InputError(f"{name} is {order!r}: give a whole number from {low} to {high}.")

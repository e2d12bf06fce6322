"""The settings of one run: a plan, with the scaled skips and the guidance that go with it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fewstep.plan import Plan
from fewstep.skip import Profile

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """What samples are drawn with.

    Attributes:
        solver, grid: in words; together with the number of calls they say what the plan is.
        plan: what is executed.
        skip: how skip connections are scaled; None: not at all.
        guidance: as ``--guidance`` takes it, 3.0 or "3:interval=0.2:2"; None: the model's.
    """

    solver: str
    grid: str
    plan: Plan
    skip: Profile | None = None
    guidance: float | str | None = None

    @property
    def name(self) -> str:
        """All of it in words."""
        words = f"{self.solver} on {self.grid}"
        if self.skip is not None:
            words += f", ρ = {self.skip.bottom:g}"
        if self.guidance is not None:
            words += f", guidance {self.guidance}"
        return words

    @property
    def key(self) -> str:
        """A hash of the words and the number of calls: rounding of the plan's numbers does not change it."""
        return hashlib.sha256(f"{self.name}, {self.plan.nfe} calls".encode()).hexdigest()[:16]

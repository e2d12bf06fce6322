"""The settings of a calibration, checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, get_args

from torch import Tensor

from fewstep.calibration.fitting import Progress
from fewstep.calibration.least_squares import Loss
from fewstep.checks import as_integer, as_word, check_callback, flag, shown, whole
from fewstep.errors import InputError
from fewstep.executor import checked_seeds
from fewstep.metrics.moments import Moments

__all__ = ["Objective", "Settings", "checked_steps"]

Objective = Literal["final", "local", "features", "distribution"]
OF_FEATURES = ("features", "distribution")
MOST = 1_000_000
MOST_STEPS = 10_000
"""The most steps of a reference, which has at least twice as many as a plan."""
LEAST = 8
"""The least number of noises: two are held out, and six are left for the four folds of the cross-validation."""
WORDS = ("auto", "last")
"""What ``analytic`` may be, besides a number: either tries a formula after the last row."""
MOST_ANALYTIC = 3
"""The most predictions that "auto" replaces by formulas."""
BUDGET = 5
"""A search begins nothing new after so many times the reference's calls."""


@dataclass(frozen=True)
class Settings:
    """What ``calibrate`` was asked for; the attributes are its arguments, and whether the solver adds noise.

    Raises:
        InputError: if a setting is not one of those that there are, or two do not go together.
    """

    num: int
    seeds: Sequence[int] | None
    history: int
    analytic: int | str
    loss: str
    reference_steps: int
    search: bool
    objective: str
    features: Callable[[Tensor], Tensor] | None
    target: Moments | None
    budget: int | None
    batch_size: int
    progress: Progress | None
    steps: tuple[int, ...]
    stochastic: bool = False

    def __post_init__(self) -> None:
        """Check all."""
        as_word("objective", self.objective, get_args(Objective))
        check_callback("features", self.features)
        check_callback("progress", self.progress)
        if self.features is not None and self.objective not in OF_FEATURES:
            raise InputError(
                "features are what objective='features' and 'distribution' compare: write one, or leave them out."
            )
        if self.features is None and self.objective in OF_FEATURES:
            raise InputError(f"objective={self.objective!r} needs features=, a function of samples [n, …] -> [n, …].")
        if self.target is not None and self.objective != "distribution":
            raise InputError("target is what objective='distribution' fits moments to: write that, or leave it out.")
        limits = {
            "num": (LEAST, MOST),
            "history": (1, None),
            "batch_size": (1, MOST),
            "reference_steps": (2 * max(self.steps), MOST_STEPS),
            "budget": (0, None),
        }
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if value is not None or name != "budget":
                object.__setattr__(self, name, whole(name, value, least, most))
        object.__setattr__(self, "search", flag("search", self.search))
        if self.budget is not None and not self.search:
            raise InputError("budget is when a search begins nothing new: write search=True, or leave it out.")
        object.__setattr__(self, "analytic", self._checked_analytic())
        as_word("loss", self.loss, ("auto", "square", "root"))
        if self.analytic == "last" and self.objective == "distribution":
            raise InputError("analytic='last' is fitted to samples, not to their distribution: leave it out.")
        if self.stochastic and (self.search or any(self.counts) or self.loss != "auto"):
            raise InputError(
                "search, analytic and loss are for solvers that add no noise: leave them out, or write tau=0."
            )

    @property
    def last(self) -> bool:
        """Whether a formula after the last row is tried; moments of features would only see it shrink samples."""
        return self.analytic in WORDS and self.objective != "distribution" and not self.stochastic

    def _checked_analytic(self) -> int | str:
        """Return the word, or the number as an int: rows, one more a formula, are at most the reference's calls."""
        if isinstance(self.analytic, str) and self.analytic in WORDS:
            return self.analytic
        number, most = as_integer(self.analytic), self.reference_steps - max(self.steps)
        if number is None or not 0 <= number <= most:
            raise InputError(
                f"analytic is {shown(self.analytic)}: give 'auto', 'last', or how many of the first predictions are "
                f"formulas, from 0 to {most} with reference_steps={self.reference_steps}."
            )
        return number

    @property
    def counts(self) -> list[int]:
        """The numbers of formulas to try."""
        if isinstance(self.analytic, int):
            return [self.analytic]
        return list(range(MOST_ANALYTIC + 1)) if self.analytic == "auto" and not self.stochastic else [0]

    @property
    def losses(self) -> tuple[Loss, ...]:
        """The losses to fit with; the held-out noises choose among several."""
        if self.loss == "auto" and self.objective != "local":
            return "square", "root"
        return (self.first_loss,)

    @property
    def first_loss(self) -> Loss:
        """The loss that starts are compared by."""
        return "square" if self.loss == "square" or (self.loss, self.objective) == ("auto", "local") else "root"

    @property
    def calls(self) -> int:
        """The network calls after which a search begins nothing new."""
        return BUDGET * self.num * self.reference_steps if self.budget is None else self.budget

    def to_dict(self) -> dict[str, Any]:
        """Return what a report says of them, JSON-able."""
        features = self.features
        return {
            "history": self.history,
            "analytic": self.analytic,
            "loss": self.loss,
            "reference_steps": self.reference_steps,
            "search": self.search,
            "objective": self.objective,
            "features": getattr(features, "__name__", None if features is None else repr(features)),
            "target": None if self.target is None else self.target.features or "moments",
            "seeds": None if self.seeds is None else checked_seeds(self.seeds),
        }


def checked_steps(steps: Iterable[int] | None, given: int) -> tuple[int, ...]:
    """Return the numbers of calls that are wanted; None stands for that of the grid, ``given``.

    Raises:
        InputError: if there are none, or they are not different whole numbers, from 1 to half a reference's most steps.
    """
    most = MOST_STEPS // 2
    if steps is None:
        if given > most:
            raise InputError(f"the grid has {given} steps: give one of at most {most}.")
        return (given,)
    try:
        found = [as_integer(number) for number in islice(steps, most + 1)]
    except TypeError:
        found = []
    numbers = tuple(number for number in found if number is not None and 0 < number <= most)
    if not found or len(set(numbers)) < len(found):
        raise InputError(
            f"steps is {shown(steps)}: give different whole numbers from 1 to {most}, such as range(4, 13)."
        )
    return numbers

"""The result of a search: the recipe, the verdict on unseen noises, and everything that was tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from fewstep.recipe import Recipe
from fewstep.tuning.settings import Settings

__all__ = ["Tried", "Tuning", "Value", "Verdict"]

NAMES = {
    "error": "error to the solution",
    "feature-error": "error of features to the solution's",
    "fd": "Fréchet distance",
    "score": "score",
}


@dataclass(frozen=True)
class Value:
    """A number with its 95 % bootstrap interval over the noises."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} (95 %: {self.low:.4g} to {self.high:.4g})"


@dataclass(frozen=True)
class Tried:
    """A candidate.

    Attributes:
        settings: what it is.
        value: the objective as people read it, on the last ``noises`` that it was measured on.
        noises: how many.
        predicted: its error on Gaussian data with the model's spectrum; None where there is none.
    """

    settings: Settings
    value: float
    noises: int
    predicted: float | None


@dataclass(frozen=True)
class Verdict:
    """The winner against the model's default, on noises and prompts that the search has not seen.

    Attributes:
        metric: "error", "feature-error", "fd" or "score".
        noises: how many.
        default: the name of the sampler that comes with the model.
        winner, before: the values of the winner and of the default at as many network calls.
        gain: how many times smaller the winner's error is; of other metrics by how much the winner is better.
        better: whether the gain's interval is above 1, or 0.
        equal_calls: the network calls in which the default is as good as the winner, interpolated; None where it is
            not in ``most``, the most that it was measured at.
        equal_low, equal_high: the 95 % interval.
        most: the most calls that the default was measured at.
        default_values: the default's value by number of calls.
        kid: KID of winner and default, mean and deviation over subsets, for "fd".
    """

    metric: str
    noises: int
    default: str
    winner: Value
    before: Value
    gain: Value
    better: bool
    equal_calls: float | None
    equal_low: float
    equal_high: float
    most: int
    default_values: Mapping[int, float]
    kid: tuple[tuple[float, float], tuple[float, float]] | None = None

    @property
    def equivalence(self) -> str:
        """The calls of the default that are worth the winner's, in words."""
        if self.equal_calls is None:
            return f"more than {self.most} calls"
        return f"{self.equal_calls:.1f} calls (95 %: {self.equal_low:.1f} to {self.equal_high:.1f})"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {**asdict(self), "default_values": {str(calls): value for calls, value in self.default_values.items()}}

    def __str__(self) -> str:
        name = NAMES[self.metric]
        if not self.better:
            return (
                f"nothing was better beyond doubt than the default, {self.default}: {name} {self.before} "
                f"on {self.noises} unseen noises; the best other setting had {self.winner}, and the interval of its "
                "gain includes none"
            )
        factor = "times lower" if self.metric in ("error", "feature-error") else "better"
        return (
            f"{name} {self.winner} on {self.noises} unseen noises, {self.before} by default ({self.default}): "
            f"{self.gain.value:.3g} {factor} (95 %: {self.gain.low:.3g} to {self.gain.high:.3g}); "
            f"the default needs {self.equivalence}"
        )


@dataclass(frozen=True)
class Tuning:
    """The result of ``fs.tune``.

    Attributes:
        recipe: the winner, or the default where nothing was better.
        verdict: what it is worth.
        winner, default: their settings.
        tried: the candidates that were measured, best first.
        calls: network calls, one a sample, guidance within a call not counted; those of all processes together.
        budget: in network calls.
        reference_steps: calls of a solution.
        samples: a number n to samples [n, …] of the same unseen noises with a line about each: of the winner, the
            default and, where there are any, the solutions. They are drawn anew, beyond the budget.
    """

    recipe: Recipe
    verdict: Verdict
    winner: Settings
    default: Settings
    tried: tuple[Tried, ...]
    calls: int
    budget: int
    reference_steps: int
    samples: Callable[[int], dict[str, tuple[str, Tensor]]] = field(repr=False, compare=False)

    def __str__(self) -> str:
        chosen = self.winner if self.verdict.better else self.default
        return f"{chosen.name}, {chosen.plan.nfe} calls: {self.verdict}; {self.calls} network calls"

"""Rules that combine a prediction and the one to move away from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.checks import real
from fewstep.denoiser import PREDICTIONS
from fewstep.processes import Process
from fewstep.processes.spec import build

__all__ = ["RULES", "Linear", "Outputs", "Projected", "Rule", "ZeroStar", "rescaled", "rule_named"]


@dataclass(frozen=True)
class Outputs:
    """The map between data predictions at one state and the network's own outputs o: D = x_part + gain·o."""

    x_part: Tensor
    gain: Tensor

    @classmethod
    def of(cls, prediction: str, process: Process, x_t: Tensor, t: Tensor) -> Outputs | None:
        """Return the map of what a network predicts; None where that is D itself, or EDM's."""
        if prediction not in PREDICTIONS or prediction == "x0":
            return None
        convert, alpha, sigma = PREDICTIONS[prediction], process.alpha(t), process.sigma(t)
        none, one = torch.zeros_like(alpha), torch.ones_like(alpha)
        return cls(convert(none, one, alpha, sigma).to(x_t.dtype) * x_t, convert(one, none, alpha, sigma).to(x_t.dtype))

    def from_data(self, data: Tensor) -> Tensor:
        """Return the network's output for D."""
        return (data - self.x_part) / self.gain

    def to_data(self, output: Tensor) -> Tensor:
        """Return D of a network's output."""
        return self.x_part + self.gain * output


class Rule(ABC):
    """How a prediction is moved away from another one, by a scale of which 1 leaves it as it is."""

    name: ClassVar[str]
    momentum: float = 0.0
    zero_above: float | None = None

    @abstractmethod
    def __call__(self, good: Tensor, bad: Tensor, scale: float | Tensor, outputs: Outputs | None) -> Tensor:
        """Return the guided D.

        Args:
            good: D to move from, [batch, …].
            bad: D to move away from.
            scale: a number, or a tensor [batch, 1, …].
            outputs: the map to the network's own outputs, None where they are D.
        """

    @property
    def words(self) -> dict[str, object]:
        """The name, and the settings that are not the default ones, as ``--guidance`` has them."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.init}  # type: ignore[arg-type]
        made = {key: value for key, value in own.items() if value != getattr(type(self)(), key)}
        return {**({} if isinstance(self, Linear) else {"rule": self.name}), **made}


@dataclass(frozen=True)
class Linear(Rule):
    """D = D_bad + w·(D_good − D_bad)."""

    name = "linear"

    def __call__(self, good: Tensor, bad: Tensor, scale: float | Tensor, outputs: Outputs | None) -> Tensor:
        """Return the guided D."""
        return bad + scale * (good - bad)


@dataclass(frozen=True)
class Projected(Rule):
    r"""APG: the part of the difference that is parallel to D_good is taken ``eta`` times, as it is what oversaturates.

    With Δ = D_good − D_bad (under a momentum β, Δ ← Δ + β·Δ of the call before), cut to a norm of r at most, and Δ∥,
    Δ⊥ its parts along D_good and across it, norms and products over a sample: D = D_good + (w − 1)·(Δ⊥ + η·Δ∥).

    Equals: η = 1 without r and β is ``Linear``.

    Source: Sadat et al., Eliminating Oversaturation and Artifacts of High Guidance Scales in Diffusion Models
    (arXiv 2410.02416), algorithm 1.

    Args:
        eta: η, the share of the parallel part, 0 in the paper's recommendation.
        threshold: r, the largest norm of Δ; 0 is none. The paper's: 2.5 (EDM2), 5 (SD 2.1), 15 (SDXL).
        momentum: β from −1 to below 1; the paper's are −0.75 to 0. It starts anew where time does not fall, and makes D
            depend on the calls before: do not calibrate under it.

    Raises:
        InputError: for settings out of their ranges.
    """

    name = "apg"
    eta: float = 0.0
    threshold: float = 0.0
    momentum: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings."""
        real("eta", self.eta)
        real("threshold", self.threshold, 0.0)
        real("momentum", self.momentum, -1.0, 0.999)

    def __call__(self, good: Tensor, bad: Tensor, scale: float | Tensor, outputs: Outputs | None) -> Tensor:
        """Return the guided D."""
        axes = tuple(range(1, good.ndim))
        moved = good - bad
        if self.threshold > 0:
            norm = torch.linalg.vector_norm(moved, dim=axes, keepdim=True)
            moved = moved * (self.threshold / norm.clamp(min=self.threshold))
        along = torch.nn.functional.normalize(good.double(), dim=axes)  # type: ignore[arg-type]
        parallel = ((moved * along).sum(dim=axes, keepdim=True) * along).to(good.dtype)
        return good + (scale - 1.0) * (moved - parallel + self.eta * parallel)


@dataclass(frozen=True)
class ZeroStar(Rule):
    r"""CFG-Zero*: the other prediction is first scaled to fit, and nothing moves at the start.

    In the network's own output v (a flow's velocity): v = s·v_bad + w·(v_good − s·v_bad) with
    s = ⟨v_good, v_bad⟩/‖v_bad‖², a number for each sample. Where σ/α exceeds ``zero_above`` v = 0, and no network is
    called.

    Source: Fan et al., CFG-Zero*: Improved Classifier-Free Guidance for Flow Matching Models (arXiv 2503.18886),
    section 4; its zero-init takes the first 4 % of the steps.

    Args:
        zero_above: σ/α above which the output is 0; None: nowhere.

    Raises:
        InputError: if ``zero_above`` is not above 0.
    """

    name = "zero-star"
    zero_above: float | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.zero_above is not None:
            real("zero_above", self.zero_above, 0.0, above=True)

    def __call__(self, good: Tensor, bad: Tensor, scale: float | Tensor, outputs: Outputs | None) -> Tensor:
        """Return the guided D."""
        if outputs is not None:
            good, bad = outputs.from_data(good), outputs.from_data(bad)
        axes = tuple(range(1, good.ndim))
        size = (bad * bad).sum(dim=axes, keepdim=True)
        bad = bad * ((good * bad).sum(dim=axes, keepdim=True) / size.clamp(min=torch.finfo(size.dtype).tiny))
        made = bad + scale * (good - bad)
        return made if outputs is None else outputs.to_data(made)


def rescaled(guided: Tensor, good: Tensor, share: float, outputs: Outputs | None) -> Tensor:
    r"""Return the guided D with the standard deviation of its output brought back towards that of ``good``.

    In the network's own output o: o·(φ·std(o_good)/std(o) + 1 − φ), deviations over a sample, φ = ``share``.

    Source: Lin et al., Common Diffusion Noise Schedules and Sample Steps are Flawed (arXiv 2305.08891), section 3.4,
    which takes φ = 0.7. An output of deviation 0 has none to bring back: it stays.
    """
    if outputs is not None:
        guided, good = outputs.from_data(guided), outputs.from_data(good)
    axes = tuple(range(1, guided.ndim))
    spread = guided.std(dim=axes, keepdim=True)
    ratio = torch.where(spread > 0, good.std(dim=axes, keepdim=True) / spread, 1.0)
    made = guided * (share * ratio + (1.0 - share))
    return made if outputs is None else outputs.to_data(made)


RULES: dict[str, type[Rule]] = {rule.name: rule for rule in (Linear, Projected, ZeroStar)}
"""The rules by name."""


def rule_named(name: str, **settings: object) -> Rule:
    """Return a rule by its name: "linear", "apg" or "zero-star".

    Raises:
        InputError: if there is none of that name, or a setting is none of its own.
    """
    return build("guidance rule", name, RULES, settings)

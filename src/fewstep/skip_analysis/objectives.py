"""The objectives of a search for ρ: the Fréchet distance of samples, or the denoising loss in features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from fewstep import checks
from fewstep.errors import InputError
from fewstep.journal import Keep, anew, resumed, within
from fewstep.metrics import Moments, frechet_distance
from fewstep.metrics.pixels import are_pictures, rounded
from fewstep.models.model import Conditions, Model
from fewstep.plan import Plan
from fewstep.skip_analysis.losses import FeatureMap, denoising_losses, features_of
from fewstep.skip_analysis.real_data import RealData

__all__ = ["FeatureLoss", "Frechet", "Objective"]


class Objective(ABC):
    """A number to minimise, computed from one row per seed, so that two settings can be compared seed by seed."""

    @abstractmethod
    def rows(self, seeds: Sequence[int], keep: Keep = anew) -> Tensor:
        """Return the sample of each seed, with the network as it is tuned now; ``keep`` is this tuning's journal."""

    @abstractmethod
    def value(self, rows: Tensor) -> float:
        """Return the number that these rows give."""


@dataclass(frozen=True)
class Frechet(Objective):
    """The Fréchet distance between samples of common seeds and a reference, in features.

    Args:
        model: what is sampled.
        plan: by which plan.
        features: images [n, C, H, W] in [−1, 1], rounded to 8 bits, to features [n, d].
        reference: moments of the reference's features.
        conditions: the condition of each seed; None for none.
        batch_size: samples at a time.
        progress: called after each network call.
    """

    model: Model
    plan: Plan
    features: FeatureMap
    reference: Moments
    conditions: Callable[[Sequence[int]], Conditions] | None = None
    batch_size: int = 64
    progress: Callable[[], None] = field(default=lambda: None, repr=False)

    def __post_init__(self) -> None:
        """Check the arguments."""
        checks.instance(Model, "model", self.model, "give what fs.models loads, with its way to images")
        checks.instance(Plan, "plan", self.plan, "give a Plan, as solver.plan(grid) returns")
        checks.function("features", self.features, "give a function of images [n, C, H, W]")
        checks.instance(Moments, "reference", self.reference, "give moments, as fs.metrics.moments_of returns")
        checks.check_callback("conditions", self.conditions)
        checks.function("progress", self.progress, "give a function without arguments")
        object.__setattr__(self, "batch_size", checks.whole("batch_size", self.batch_size))

    def rows(self, seeds: Sequence[int], keep: Keep = anew) -> Tensor:
        """Return the features of one sample a seed, float32 [n, d].

        Raises:
            InputError: if the samples are no pictures.
        """
        made: list[Tensor] = []
        for start in range(0, len(seeds), self.batch_size):
            some = seeds[start : start + self.batch_size]
            made += resumed(keep, f"{list(some)}", partial(self._features, some), self.plan.steps, self.progress)
        return torch.cat(made)

    def _features(self, seeds: Sequence[int]) -> tuple[Tensor]:
        conditions = None if self.conditions is None else self.conditions(seeds)
        images = self.model.draw(self.plan, seeds, conditions, lambda *_: self.progress())
        if not are_pictures(images.shape[1:]):
            raise InputError(f"the model's samples are {tuple(images.shape[1:])}, and no pictures: measure a loss.")
        return (features_of(rounded(images).float().div(127.5).sub(1.0), self.features),)

    def value(self, rows: Tensor) -> float:
        """Return the Fréchet distance.

        Raises:
            InputError: if the reference has other features.
        """
        return frechet_distance(rows, self.reference)


@dataclass(frozen=True)
class FeatureLoss(Objective):
    """The denoising loss in features, of the same real samples for all seeds, averaged over noise levels.

    Args:
        data: the samples; the seeds are their noise's.
        levels: noise levels σ/α, such as ``plan_levels(plan)``.
        features: images to features.
        decode: samples to images, for models that work on latents.
    """

    data: RealData
    levels: tuple[float, ...]
    features: FeatureMap
    decode: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        checks.instance(RealData, "data", self.data, "give an fs.skip_analysis.RealData")
        checks.function("features", self.features, "give a function of images [n, C, H, W]")
        checks.check_callback("decode", self.decode)
        object.__setattr__(self, "levels", checks.levels("levels", self.levels))

    def rows(self, seeds: Sequence[int], keep: Keep = anew) -> Tensor:
        """Return the loss of each sample, averaged over the levels, float64 [n]."""
        data = replace(self.data, seeds=seeds, keep=within(keep, f"{list(seeds)}"))
        losses = denoising_losses(data, self.levels, self.features, self.decode)
        assert losses.feature is not None
        return losses.feature.mean(0)

    def value(self, rows: Tensor) -> float:
        """Return the mean."""
        if not len(rows):
            raise InputError("there are no samples to average over.")
        return float(rows.mean())

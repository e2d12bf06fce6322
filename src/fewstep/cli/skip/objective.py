"""The objective of ``fewstep skip search``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.cli.settings.skip import SearchSettings
from fewstep.cli.shared.conditions import conditions_of
from fewstep.cli.shared.features import few_images
from fewstep.cli.shared.journals import digest
from fewstep.cli.skip.real_images import real_samples
from fewstep.metrics import Extractor
from fewstep.metrics.references import reference_summary
from fewstep.models.model import Model
from fewstep.plan import Plan
from fewstep.skip_analysis import FeatureLoss, Frechet, Objective, RealData, plan_levels

__all__ = ["Wanted"]


@dataclass(frozen=True)
class Wanted:
    """What all evaluations of a search have in common.

    Attributes:
        settings: what was asked for.
        model: the model that is tuned.
        plan: what samples it.
        features: those of the metric.
        prompts: of a model that takes some.
    """

    settings: SearchSettings
    model: Model
    plan: Plan
    features: Extractor
    prompts: list[str]

    def objective(self, progress: Callable[[], None]) -> tuple[Objective, int]:
        """Return the objective, the Fréchet distance or with data the loss, and its calls of ``progress`` a point.

        Raises:
            InputError: if the reference or the data cannot be read, or do not fit the model.
        """
        settings = self.settings
        batches = -(-settings.num // settings.batch_size)
        if settings.data is None:
            return self._frechet(progress, batches)
        return self._loss(settings.data, progress, batches)

    def read(self, objective: Objective) -> dict[str, str]:
        """Return what stands for the files that were read: a hash of the data, or none for a reference.

        A reference counts only once all samples are there, and those do not depend on it.
        """
        return {"data": digest(objective.data.x_0, objective.data.cond)} if isinstance(objective, FeatureLoss) else {}

    def few(self) -> str | None:
        """Return a sentence if the samples are few for the distance."""
        if self.settings.data is not None:
            return None
        moments = reference_summary(self.settings.reference, self.features).moments
        return few_images(self.settings.num, len(moments.mean), "fd")

    def _frechet(self, progress: Callable[[], None], batches: int) -> tuple[Objective, int]:
        def conditions(seeds: Sequence[int]) -> Any:
            return conditions_of(self.model, seeds, self.settings.classes, self.prompts)

        conditions([self.settings.seed])
        moments = reference_summary(self.settings.reference, self.features).moments
        objective = Frechet(
            self.model, self.plan, self.features, moments, conditions, self.settings.batch_size, progress
        )
        return objective, batches * self.plan.steps

    def _loss(self, data: Path, progress: Callable[[], None], batches: int) -> tuple[Objective, int]:
        settings = self.settings
        x_0, cond = real_samples(
            data, self.model, settings.num, settings.seed, settings.classes, self.prompts, settings.batch_size
        )
        levels = plan_levels(self.plan)
        samples = RealData(self.model.denoiser, x_0, None, cond, settings.batch_size, progress)
        return FeatureLoss(samples, levels, self.features, self.model.decode), batches * len(levels)

"""What ``fewstep skip search`` makes small, from the words of the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewstep.metrics import Extractor
    from fewstep.models.model import Model
    from fewstep.plan import Plan
    from fewstep.skip_analysis import Objective

__all__ = ["Setting"]


@dataclass(frozen=True)
class Setting:
    """What all evaluations of a search have in common, as it was asked for; ``class_`` None is the metric's habit."""

    model: Model
    plan: Plan
    features: Extractor
    reference: str
    data: Path | None
    class_: str | None
    prompts: list[str]
    num: int
    seed: int
    batch_size: int

    @property
    def classes(self) -> str:
        """``--class``, or the habit: those of the data, else each in turn."""
        return self.class_ or ("each" if self.data is None else "data")

    def objective(self, told: Callable[[], None]) -> tuple[Objective, int]:
        """Return the objective, the Fréchet distance or with data the loss, and how often it calls ``told`` a point.

        Raises:
            InputError: if the reference or the data cannot be read, or do not fit the model.
        """
        batches = -(-self.num // self.batch_size)
        return self._frechet(told, batches) if self.data is None else self._loss(self.data, told, batches)

    def _frechet(self, told: Callable[[], None], batches: int) -> tuple[Objective, int]:
        from fewstep.cli.shared.conditions import conditions_of
        from fewstep.metrics.references import reference_summary
        from fewstep.skip_analysis import Frechet

        def conditions(seeds: Sequence[int]) -> Any:
            return conditions_of(self.model, seeds, self.classes, self.prompts)

        conditions([self.seed])
        moments = reference_summary(self.reference, self.features).moments
        objective = Frechet(self.model, self.plan, self.features, moments, conditions, self.batch_size, told)
        return objective, batches * self.plan.steps

    def _loss(self, data: Path, told: Callable[[], None], batches: int) -> tuple[Objective, int]:
        from fewstep.cli.skip.real_images import real_samples
        from fewstep.skip_analysis import FeatureLoss, RealData, plan_levels

        x_0, cond = real_samples(data, self.model, self.num, self.seed, self.classes, self.prompts, self.batch_size)
        levels = plan_levels(self.plan)
        samples = RealData(self.model.denoiser, x_0, None, cond, self.batch_size, told)
        return FeatureLoss(samples, levels, self.features, self.model.decode), batches * len(levels)

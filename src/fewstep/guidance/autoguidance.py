"""Autoguidance: away from a worse version of the model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fewstep.checks import flag, shown
from fewstep.denoiser import Condition, DataPredictor
from fewstep.errors import InputError
from fewstep.guidance.guided import Guided, Scale
from fewstep.guidance.rules import Rule

__all__ = ["AutoGuidance"]


class AutoGuidance(Guided):
    r"""D = D_guide + guidance_scale·(D − D_guide): guidance by a worse version of the model itself.

    The guide is a smaller or less trained network for the same data and process, and is asked with the same condition,
    or none. Guidance then works without a condition too. ``inner`` may itself be under ``ClassifierFree``.

    Source: Karras et al., Guiding a Diffusion Model with a Bad Version of Itself (arXiv 2406.02507), eq. 4.

    Args:
        inner: the predictor to guide.
        guidance_scale: as of ``ClassifierFree``.
        guide: the worse predictor, of the same process.
        conditional: whether the guide is given the condition.
        interval, rule, rescale: as of ``ClassifierFree``.

    Raises:
        InputError: if the guide is of another process or shape, or a setting is out of its range.
    """

    def __init__(
        self,
        inner: DataPredictor,
        guidance_scale: Scale,
        guide: DataPredictor,
        *,
        conditional: bool = True,
        interval: Sequence[float] | None = None,
        rule: Rule | None = None,
        rescale: float = 0.0,
    ) -> None:
        super().__init__(inner, guidance_scale, interval=interval, rule=rule, rescale=rescale)
        if not isinstance(guide, DataPredictor):
            raise InputError(f"guide is {shown(guide)}: give an fs.Denoiser of the same process.")
        if guide.process != inner.process or (guide.shape and inner.shape and guide.shape != inner.shape):
            raise InputError(
                f"the guide is of {guide.process!r} and shape {guide.shape}, the model of {inner.process!r} and "
                f"{inner.shape}: they must be the same."
            )
        self.guide = guide
        self.conditional = flag("conditional", conditional)

    def _evaluations_of_both(self, t: float, conditional: bool) -> int:
        """Return how often both networks are evaluated together."""
        of_guide = self.guide.evaluations(t, conditional and self.conditional)
        return self.inner.evaluations(t, conditional) + of_guide

    def _pair(self, x_t: Tensor, t: Tensor, cond: Condition) -> tuple[Tensor, Tensor]:
        """Return D and that of the guide."""
        return self.inner(x_t, t, cond), self.guide(x_t, t, cond if self.conditional else None)

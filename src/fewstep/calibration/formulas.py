"""Analytic predictions fitted to the reference: mean and gains, by least squares over the calibration's noises."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from fewstep.analytic import AnalyticPrediction, cosine_transformed, radial_bands
from fewstep.calibration.least_squares import FOLDS
from fewstep.calibration.reference import Reference

__all__ = ["FORMS", "FittedFormula", "Form", "Formulas", "forms_for"]

Form = Literal["scalar", "mean", "bands", "class mean", "class bands"]
"""A scalar mean and gain; a mean sample and one gain; a mean sample and a gain for each band of spatial frequency; the
same with a mean for each class."""
FORMS: tuple[Form, ...] = ("scalar", "mean", "bands", "class mean", "class bands")


@dataclass(frozen=True)
class FittedFormula:
    """A formula, and for the noises that it was fitted to formulas that have not seen them.

    Fits that follow must not take a formula's error on its own noises for its error.
    """

    whole: AnalyticPrediction
    parts: tuple[AnalyticPrediction, ...]
    fold: Tensor
    classes: Tensor | None

    def __call__(self, x: Tensor, which: Tensor) -> Tensor:
        """Return D̂ for the noises ``which`` at the states ``x``: of those it was fitted to, by the other folds' fit."""
        made, fold = torch.empty_like(x), self.fold[which]
        classes = None if self.classes is None else self.classes[which]
        for k in fold.unique().tolist():
            chosen = fold == k
            formula = self.whole if k < 0 else self.parts[k]
            made[chosen] = formula.bound(x[chosen], None if classes is None else classes[chosen])(x[chosen])
        return made


@dataclass(frozen=True)
class Formulas:
    r"""The analytic predictions of one form as a function of time.

    At time t, mean and gain are those of the least squares of the reference's D against its x_t.

    Args:
        reference: where states and predictions come from.
        which: the noises to fit on.
        form: one of ``FORMS``.
        count: how many first predictions of a plan are replaced.
        classes: the class of each noise, for the forms of classes.
    """

    reference: Reference
    which: Tensor
    form: Form
    count: int
    classes: Tensor | None = None
    _made: dict[float, FittedFormula] = field(default_factory=dict, compare=False)

    def at(self, t: float) -> FittedFormula:
        """Return the formula of time ``t``."""
        if t not in self._made:
            x, d = self.reference.state(t, self.which).double(), self.reference.prediction(t, self.which).double()
            classes = self.classes[self.which] if self.classes is not None and self.form.startswith("class") else None
            fold = torch.arange(len(self.which)) * FOLDS // len(self.which)
            held: Tensor = torch.full((self.reference.end.shape[0],), -1)
            held[self.which] = fold
            parts = tuple(_fitted(x, d, fold != k, classes, self.form) for k in range(FOLDS))
            whole = _fitted(x, d, fold >= 0, classes, self.form)
            self._made[t] = FittedFormula(whole, parts, held, None if classes is None else self.classes)
        return self._made[t]


def forms_for(sample: tuple[int, ...], classes: Tensor | None) -> tuple[Form, ...]:
    """Return the forms worth a trial: bands need two spatial dimensions or more, means by class some of each class."""
    forms = FORMS if len(sample) > 2 else ("scalar", "mean", "class mean")
    enough = classes is not None and int(classes.unique(return_counts=True)[1].min()) >= FOLDS
    return tuple(form for form in forms if enough or not form.startswith("class"))


def _fitted(x: Tensor, d: Tensor, seen: Tensor, classes: Tensor | None, form: Form) -> AnalyticPrediction:
    """Return the least-squares formula over the noises ``seen``."""
    if form == "scalar":
        mean_x, mean_d = x[seen].mean(), d[seen].mean()
    elif classes is None:
        mean_x, mean_d = x[seen].mean(0), d[seen].mean(0)
    else:
        mean_x, mean_d = (_by_class(v[seen], classes[seen], int(classes.max()) + 1) for v in (x, d))
    groups = torch.zeros(len(x), dtype=torch.long) if classes is None else classes
    spread = (mean_x[groups], mean_d[groups]) if classes is not None else (mean_x, mean_d)
    bands = radial_bands(tuple(x.shape[2:])) if form.endswith("bands") else torch.zeros(x.shape[2:], dtype=torch.long)
    centred = [cosine_transformed((v - m)[seen]) for v, m in zip((x, d), spread, strict=True)]
    sums = torch.zeros(2, int(bands.max()) + 1, dtype=torch.float64)
    for row, other in zip(sums, (centred[1], centred[0]), strict=True):
        row.index_add_(0, bands.flatten(), (centred[0] * other).sum((0, 1)).flatten())
    gain = sums[0] / sums[1].clamp(min=torch.finfo(torch.float64).tiny)
    shape = mean_x.shape[:1] if classes is not None else ()
    if form == "scalar":
        offset = mean_d - gain * mean_x
        return AnalyticPrediction(gain, offset[0])
    flat = mean_x[None] if classes is None else mean_x
    filtered = cosine_transformed(cosine_transformed(flat) * gain[bands], inverse=True)
    return AnalyticPrediction(gain, (mean_d - filtered.view(*shape, *x.shape[1:])), by_class=classes is not None)


def _by_class(values: Tensor, classes: Tensor, count: int) -> Tensor:
    """Return the mean of each class, with the mean of all as one more of its members: a rare class is near it."""
    total = values.mean(0)
    sums = torch.zeros(count, *values.shape[1:], dtype=values.dtype).index_add_(0, classes, values - total)
    numbers = torch.bincount(classes, minlength=count).to(values.dtype)
    return total + sums / (1.0 + numbers).view(-1, *[1] * (values.ndim - 1))

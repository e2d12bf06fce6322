"""Analytic predictions fitted to the reference: mean and gains, by least squares over the calibration's noises."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from fewstep.analytic import AnalyticPrediction, amplified, cosine_transformed, radial_bands
from fewstep.calibration.features import PREDICTION_ERROR
from fewstep.calibration.least_squares import FOLDS
from fewstep.calibration.reference import Reference
from fewstep.calibration.scratch import scratch

__all__ = ["BLOCK", "FORMS", "MOST_SEEN", "PAST", "FittedFormula", "Form", "Formulas", "Piece", "forms_for"]

Form = Literal[
    "scalar", "mean", "bands", "channel bands", "past bands", "class mean", "class bands", "class channel bands"
]
"""A scalar mean and gain; a mean sample and one gain; a mean sample and a gain for each band of spatial frequency; a
matrix of the channels for each band; one of the channels of the state and of earlier predictions; three of them with a
mean for each class."""
PAST: Form = "past bands"
BLOCK = 8
"""Noises that are in memory, and whose products are summed, at a time: sums are the same whatever a call's batch."""
KEPT = 64
"""Times whose formulas are kept: a search asks for many."""
Piece = tuple[Tensor, Tensor, Tensor]
"""The numbers of some noises, their states, and what is to be predicted from these."""
FORMS: tuple[Form, ...] = get_args(Form)
MOST_CHANNELS = 16
"""With more channels a matrix of them has more numbers than the noises of a calibration determine."""
MOST_SEEN = 64
"""The most channels that a matrix of the state and of earlier predictions takes."""
PULL = 0.1
"""The mean of all counts as so much of one member of each class."""


@dataclass(frozen=True)
class FittedFormula:
    """A formula, and for the noises that it was fitted to formulas that have not seen them.

    Fits that follow must not take a formula's error on its own noises for its error.
    """

    form: Form
    whole: AnalyticPrediction
    parts: tuple[AnalyticPrediction, ...]
    fold: Tensor
    classes: Tensor | None

    @classmethod
    def of(cls, form: Form, pieces: Iterable[Piece], which: Tensor, num: int, classes: Tensor | None) -> FittedFormula:
        """Return the least-squares formula of one form.

        Args:
            form: one of ``FORMS``.
            pieces: ``BLOCK`` noises with their states and what is to be predicted from these, over all of ``which``;
                for "past bands" the channels of earlier predictions come after those of the state.
            which: the noises to fit on.
            num: how many noises there are in all.
            classes: the class of each noise, for the forms of classes.
        """
        classes = classes if form.startswith("class") else None
        fold = torch.full((num,), -1)
        fold[which] = torch.arange(len(which)) * FOLDS // len(which)
        sums = _Sums.of(form, pieces, fold, classes)
        every = torch.arange(FOLDS)
        parts = tuple(sums.fitted(every[every != k]) for k in range(FOLDS))
        return cls(form, sums.fitted(every), parts, fold, classes)

    def __call__(self, seen: Tensor, which: Tensor) -> Tensor:
        """Return D̂ for the noises ``which`` from what it takes: of those it was fitted to, by the other folds' fit."""
        x, *past = seen.chunk(1 + self.whole.past, 1)
        made = scratch(tuple(x.shape), x.dtype)
        for place in torch.arange(len(which)).split(BLOCK):
            fold = self.fold[which[place]]
            for k in fold.unique().tolist():
                chosen = place[fold == k]
                classes = None if self.classes is None else self.classes[which[chosen]]
                formula = self.whole if k < 0 else self.parts[k]
                made[chosen] = formula.bound(x[chosen], classes)(x[chosen], *(one[chosen] for one in past))
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
            pieces = (
                (part, self.reference.state(t, part), self.reference.prediction(t, part))
                for part in self.which.split(BLOCK)
            )
            num = self.reference.end.shape[0]
            self._made[t] = FittedFormula.of(self.form, pieces, self.which, num, self.classes)
            if len(self._made) > KEPT:
                self._made.pop(next(iter(self._made)))
        return self._made[t]

    def error(self, t: float) -> float:
        """Return the mean square of what the formula of time ``t`` misses on noises that it has not seen."""
        formula, total = self.at(t), 0.0
        for part in self.which.split(BLOCK):
            gap = formula(self.reference.state(t, part), part) - self.reference.prediction(t, part)
            total += float(gap.double().square().flatten(1).mean(1).sum())
        return total / len(self.which)


def forms_for(sample: tuple[int, ...], classes: Tensor | None, past: int = 0) -> tuple[Form, ...]:
    """Return the forms worth a trial where so many earlier predictions can be taken.

    Bands need two spatial dimensions or more, matrices some channels, means by class some of each class.
    """
    several = 1 < sample[0] <= MOST_CHANNELS
    hopeless = {
        "bands": len(sample) <= 2,
        "channel": not several,
        "past": not (several and past),
        "class": classes is None or int(classes.unique(return_counts=True)[1].min()) < FOLDS,
    }
    return tuple(form for form in FORMS if not any(hopeless.get(word, False) for word in form.split()))


@dataclass(frozen=True)
class _Sums:
    """Sums over the noises of each fold: all that a fit needs, however many noises there are.

    With x and d a state and its prediction: ``count`` [F, classes], ``x`` and ``d`` [F, classes, *sample], and in
    ``xx`` and ``dx`` the products of their spectra, [F, bands] or [F, bands, channels, channels]. Where earlier
    predictions are taken, x has their channels too. ``dtype`` is the states' own.
    """

    form: Form
    dtype: torch.dtype
    bands: Tensor
    count: Tensor
    x: Tensor
    d: Tensor
    xx: Tensor
    dx: Tensor

    @classmethod
    def of(cls, form: Form, pieces: Iterable[Piece], fold: Tensor, classes: Tensor | None) -> _Sums:
        """Return the sums over all noises of the pieces."""
        groups = torch.zeros_like(fold) if classes is None else classes
        sums: _Sums | None = None
        for which, states, data in pieces:
            if sums is None:
                sums = cls.empty(form, states.dtype, states.shape[1:], data.shape[1:], int(groups.max()) + 1)
            sums.add(states.double(), data.double(), fold[which], groups[which])
        assert sums is not None
        return sums

    @classmethod
    def empty(
        cls, form: Form, dtype: torch.dtype, seen: tuple[int, ...], sample: tuple[int, ...], groups: int
    ) -> _Sums:
        """Return the sums over no noise."""
        bands = radial_bands(sample[1:])
        bands = bands if form.endswith("bands") else torch.zeros_like(bands)
        matrices = "channel" in form or "past" in form
        count = torch.zeros(FOLDS, groups, dtype=torch.float64)
        x, d = (torch.zeros(FOLDS, groups, *shape, dtype=torch.float64) for shape in (seen, sample))
        xx, dx = (
            torch.zeros(FOLDS, int(bands.max()) + 1, *((made, seen[0]) if matrices else ()), dtype=torch.float64)
            for made in (seen[0], sample[0])
        )
        return cls(form, dtype, bands, count, x, d, xx, dx)

    def add(self, states: Tensor, data: Tensor, fold: Tensor, groups: Tensor) -> None:
        """Add some noises, each to its fold and its class."""
        for place, state, prediction in zip(
            zip(fold.tolist(), groups.tolist(), strict=True), states, data, strict=True
        ):
            self.count[place] += 1.0
            self.x[place] += state
            self.d[place] += prediction
        hat_x, hat_d = cosine_transformed(states), cosine_transformed(data)
        for k in fold.unique().tolist():
            some = fold == k
            self.xx[k] += self._products(hat_x[some], hat_x[some])
            self.dx[k] += self._products(hat_d[some], hat_x[some])

    def fitted(self, folds: Tensor) -> AnalyticPrediction:
        """Return the least-squares formula over some of the folds."""
        count, x, d = (v[folds].sum(0) for v in (self.count, self.x, self.d))
        mean_x, mean_d = (self._means(v, count) for v in (x, d))
        size = count.view(-1, *[1] * (x.ndim - 1))
        spectra = [cosine_transformed(v) for v in (mean_x, mean_d, x, d, size * mean_x)]
        hat_x, hat_d, sum_x, sum_d, all_x = spectra

        def about_the_means(products: Tensor, hat: Tensor, total: Tensor) -> Tensor:
            crossed = self._products(hat, sum_x) + self._products(total, hat_x) - self._products(hat, all_x)
            return products[folds].sum(0) - crossed

        xx, dx = about_the_means(self.xx, hat_x, sum_x), about_the_means(self.dx, hat_d, sum_d)
        least = self._rounding(folds)
        if self.form == PAST:
            gain = _changes(xx, dx, PREDICTION_ERROR[self.dtype] ** 2, least)
        elif xx.ndim == 1:
            gain = torch.where(xx > least, dx / xx.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
        else:
            gain = dx @ torch.linalg.pinv(xx, atol=least, hermitian=True)
        offset = mean_d - cosine_transformed(amplified(hat_x, gain[self.bands]), inverse=True)
        if self.form == "scalar":
            return AnalyticPrediction(gain, offset.mean())
        by_class = self.form.startswith("class")
        return AnalyticPrediction(gain, offset if by_class else offset[0], by_class)

    def _rounding(self, folds: Tensor) -> Tensor:
        """Return the most that rounding makes of ``xx`` about the means in each band: what varies less is constant."""
        squares = self.xx[folds].sum(0)
        if squares.ndim == 3:
            squares = squares.diagonal(dim1=1, dim2=2).sum(-1)
        terms = self.count[folds].sum() * self.x.shape[2] * self.bands.flatten().bincount()
        return torch.finfo(torch.float64).eps * terms * squares

    def _means(self, sums: Tensor, count: Tensor) -> Tensor:
        """Return the mean of each class; with several, that of all counts for a little: a rare class is near it."""
        total = sums.sum(0) / count.sum()
        if self.form == "scalar":
            return total.mean().expand_as(sums)
        if len(count) == 1:
            return total[None]
        size = count.view(-1, *[1] * (sums.ndim - 1))
        return total + (sums - size * total) / (PULL + size)

    def _products(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the sums of products of spectra [n, channels, …] in each band, of each channel with each or itself."""
        if self.xx.ndim == 2:
            sums = torch.zeros(self.xx.shape[1], dtype=torch.float64)
            return sums.index_add_(0, self.bands.flatten(), (one * other).sum((0, 1)).flatten())
        places = [self.bands == band for band in range(self.xx.shape[1])]
        return torch.stack([torch.einsum("ncm,nem->ce", one[:, :, place], other[:, :, place]) for place in places])


def _changes(xx: Tensor, dx: Tensor, error: float, least: Tensor) -> Tensor:
    """Return gains [bands, made, seen] that take the state, the first channels seen, towards d, by ridge regression.

    Args:
        xx: products of what is seen, [bands, seen, seen].
        dx: those of d with it, [bands, made, seen].
        error: the relative mean square error of what is seen that the fit allows for: what it adds is the ridge.
        least: what of ``xx`` is rounding, [bands].
    """
    made = dx.shape[1]
    squares = xx.diagonal(dim1=1, dim2=2)
    ridge = torch.diag_embed(error * squares + least[:, None].clamp(min=torch.finfo(torch.float64).tiny))
    gain = torch.linalg.solve(xx + ridge, dx - xx[:, :made], left=False)
    gain[:, :, :made] += torch.eye(made, dtype=torch.float64)
    return gain

"""Ridge least squares from normal equations that are kept noise by noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["FOLDS", "Loss", "NormalEquations", "Ridge", "choose_ridge", "total", "weights"]

Loss = Literal["square", "root"]
"""The mean of the noises' mean square errors, or the square of the mean of their roots, in which a few noises that end
in another picture count for little."""
MOST = 8.0
"""The largest weight of a noise."""

FOLDS = 4
"""Parts of the noises; each is held out from the fit once, to choose ridge and width."""


@dataclass(frozen=True)
class NormalEquations:
    r"""Gram matrices and moments of n noises, each an average over its own values.

    With features F_i [k, values] and residual r_i of noise i: gram[i] = F_i·F_iᵀ, moment[i] = F_i·r_i,
    energy[i] = r_i·r_i, all over the number of values. Kept apart, any subset of noises can be fitted without a
    second pass, and sums do not depend on how noises were batched.
    """

    gram: Tensor
    moment: Tensor
    energy: Tensor

    @classmethod
    def of(cls, pairs: Iterable[tuple[Tensor, Tensor]]) -> NormalEquations:
        """Return those of features [k, values] and a residual [values] for each noise, float64; one pair is held."""
        sums = [(f @ f.T / f.shape[1], f @ r / f.shape[1], r @ r / r.shape[0]) for f, r in pairs]
        gram, moment, energy = zip(*sums, strict=True)
        return cls(torch.stack(gram), torch.stack(moment), torch.stack(energy))

    def part(self, which: Tensor, width: int | None = None) -> NormalEquations:
        """Return those of some noises and the first ``width`` features."""
        return NormalEquations(self.gram[which, :width, :width], self.moment[which, :width], self.energy[which])

    def weighted(self, weight: Tensor) -> NormalEquations:
        """Return the equations of the sum in which noise i counts ``weight[i]`` times."""
        return NormalEquations(self.gram * weight[:, None, None], self.moment * weight[:, None], self.energy * weight)

    def solve(self, ridge: float) -> Tensor:
        """Return the δ that minimises the mean of (r − δ·F)² + ridge·|δ|²."""
        gram = self.gram.mean(0)
        factor = torch.linalg.cholesky(gram + ridge * torch.eye(len(gram), dtype=gram.dtype))
        return torch.cholesky_solve(self.moment.mean(0)[:, None], factor).squeeze(1)

    def error(self, delta: Tensor) -> Tensor:
        """Return the mean of (r − δ·F)² of each noise, [n]; at least 0."""
        fitted = self.energy - 2.0 * self.moment @ delta + torch.einsum("i,nij,j->n", delta, self.gram, delta)
        return fitted.clamp(min=0.0)


def total(errors: Tensor, loss: Loss) -> float:
    """Return the loss of noises with mean square ``errors`` [n]."""
    return float(errors.mean() if loss == "square" else errors.sqrt().mean().square())


def weights(errors: Tensor, loss: Loss) -> Tensor:
    """Return the weights [n] with which the mean square has the gradient of the loss, at most ``MOST``."""
    if loss == "square":
        return torch.ones_like(errors)
    roots = errors.sqrt()
    return (roots.mean() / roots.clamp(min=torch.finfo(roots.dtype).tiny)).clamp(max=MOST)


@dataclass(frozen=True)
class Ridge:
    """A choice: the ridge, how many features, and the cross-validated mean square error; 0 features is no fit."""

    ridge: float
    width: int
    error: float


def choose_ridge(equations: NormalEquations, ridges: tuple[float, ...], widths: list[int]) -> Ridge:
    """Return the ridge and width of the least error on the noises that each fit has not seen.

    No fit at all is among the choices, so the error is at most that of δ = 0.
    """
    n = len(equations.energy)
    best = Ridge(0.0, 0, float(equations.energy.mean()))
    folds = torch.arange(n) * FOLDS // n
    for width in widths:
        for ridge in ridges:
            error = 0.0
            for fold in range(FOLDS):
                seen, unseen = torch.nonzero(folds != fold)[:, 0], torch.nonzero(folds == fold)[:, 0]
                delta = equations.part(seen, width).solve(ridge)
                error += float(equations.part(unseen, width).error(delta).sum())
            if error / n < best.error:
                best = Ridge(ridge, width, error / n)
    return best

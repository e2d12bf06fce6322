"""The moments that features of samples should have, and how the Fréchet distance to them changes with the samples."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fewstep.metrics.frechet import frechet_distance
from fewstep.metrics.moments import Moments

__all__ = ["MomentTarget", "distance"]

MOST = 64
"""The most directions in which covariances are compared: those in which the target varies most."""
LEAST = 1e-6
"""The least variance of such a direction, relative to the largest."""


@dataclass(frozen=True)
class MomentTarget:
    r"""Mean μ* [d] and covariance Σ* [d, d], with the eigenvectors V [d, k] of Σ* and its eigenvalues λ [k].

    With Δ = Vᵀ(Σ − Σ*)V the Fréchet distance of features with mean μ and covariance Σ is, to second order,
    \|μ − μ*\|² + ½·Σ_ij Δ_ij²/(λ_i + λ_j), if Σ and Σ* differ in these directions alone.
    """

    moments: Moments

    def pull(self, features: Tensor) -> Tensor:
        r"""Return w [n, d], −½ times the derivative of the distance by the features [n, d].

        w_i = (μ* − μ)/n + (T − 1)·(f_i − μ)/(n − 1), where T = R·(R·Σ·R)^{−1/2}·R with R = Σ*^{1/2} takes a Gaussian
        of covariance Σ to one of Σ* by the shortest way.
        """
        mean, count = features.mean(0), len(features)
        centred = features - mean
        root = _power(self.moments.covariance, 0.5)
        transport = root @ _power(root @ (centred.T @ centred) @ root / (count - 1), -0.5) @ root
        return (self.moments.mean - mean) / count + (centred @ transport - centred) / (count - 1)

    def changes(self, features: Tensor, moved: Tensor) -> Tensor:
        r"""Return what derivatives ``moved`` [p, n, d] of the features [n, d] do to μ and Σ, in units of the distance.

        Of [p, d + k(k + 1)/2] values the squares sum to the second-order distance that a step of 1 makes.
        """
        centred = (features - features.mean(0)) @ self.directions
        half = (moved @ self.directions).transpose(1, 2) @ centred / (len(features) - 1)
        row, column = torch.triu_indices(len(self.variances), len(self.variances))
        twice = 1.0 + (row != column).double()
        scale = (0.5 * twice / (self.variances[row] + self.variances[column])).sqrt()
        return torch.cat([moved.mean(1), (half + half.transpose(1, 2))[:, row, column] * scale], 1)

    @property
    def variances(self) -> Tensor:
        """λ [k], largest first."""
        return self._eigen[0]

    @property
    def directions(self) -> Tensor:
        """V [d, k]."""
        return self._eigen[1]

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(self.moments.covariance)
        order = values.argsort(descending=True)[:MOST]
        order = order[values[order] > LEAST * values[order[0]]]
        return values[order], vectors[:, order]


def distance(features: Tensor, moments: Moments) -> float:
    """Return the Fréchet distance of features [n, d], however few they are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "there are .* samples for .* features", UserWarning)
        return frechet_distance(features, moments)


def _power(matrix: Tensor, power: float) -> Tensor:
    """Return a power of a positive semi-definite matrix, in the directions where it is not zero."""
    values, vectors = torch.linalg.eigh(matrix)
    held = values > 1e-9 * values[-1]
    return (vectors[:, held] * values[held].pow(power)) @ vectors[:, held].T

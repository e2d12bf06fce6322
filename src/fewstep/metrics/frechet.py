"""The Fréchet distance between two sets of features."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from fewstep.checks import shown
from fewstep.errors import InputError
from fewstep.metrics.moments import Moments

__all__ = ["FeatureSet", "frechet_distance", "moments_of"]

FeatureSet = Moments | Tensor | Iterable[Tensor]
"""Moments, features [n, d], or features batch by batch."""


def moments_of(features: FeatureSet, name: str = "") -> Moments:
    """Return the mean and covariance of features, batch by batch in constant memory; moments as they are.

    Args:
        features: moments, a tensor [n, d], or any iterable of such tensors, which need not fit in memory.
        name: what made the features, such as ``extractor.tag``.

    Raises:
        InputError: if they are nothing of the kind.
    """
    if isinstance(features, Moments):
        return features
    if isinstance(features, (Mapping, str, bytes)) or not isinstance(features, Iterable):
        raise InputError(f"features are {shown(features)}: give moments, a tensor [n, d], or batches of such.")
    gathered = Moments(name)
    for batch in (features,) if isinstance(features, (Tensor, np.ndarray)) else features:
        gathered.update(batch)
    return gathered


def frechet_distance(one: FeatureSet, other: FeatureSet) -> float:
    r"""Return \|μ₁ − μ₂\|² + tr(Σ₁ + Σ₂ − 2·(Σ₁Σ₂)^{1/2}), the Fréchet distance of two Gaussians, squared.

    With Inception's features it is the FID (Heusel et al., arXiv 1706.08500). tr (Σ₁Σ₂)^{1/2} is the sum of the
    roots of the eigenvalues of Σ₁^{1/2}·Σ₂·Σ₁^{1/2}, which is symmetric, so that no complex roots appear; all of it
    in float64. ``torchmetrics``' FrechetInceptionDistance gives the same number (a test compares them), but can
    neither be given the statistics of a data set nor write them down, so it does not serve here.

    Raises:
        InputError: if a side has fewer than two samples, the two have different features, or a covariance is none.

    Warns:
        UserWarning: if there are fewer samples than features.
    """
    left, right = moments_of(one), moments_of(other)
    if left.features and right.features and left.features != right.features:
        raise InputError(
            f"the features differ: {left.features!r} and {right.features!r}; measure both sides with the same ones."
        )
    if left.mean.shape != right.mean.shape:
        raise InputError(f"the features have {len(left.mean)} and {len(right.mean)} dimensions: they must agree.")
    first, second = left.covariance, right.covariance
    for side in (left, right):
        if side.count < len(side.mean):
            warnings.warn(
                f"there are {side.count} samples for {len(side.mean)} features: the covariance of so few is "
                "unreliable, and the distance is too large by an amount that depends on their number.",
                UserWarning,
                stacklevel=2,
            )
    values, vectors = torch.linalg.eigh(first)
    for least, most in ((values[0], values[-1]), (torch.linalg.eigvalsh(second)[[0, -1]])):
        if float(least) < -1e-6 * max(1e-12, abs(float(most))):
            raise InputError(
                f"a covariance has the eigenvalue {float(least):.3g}: the statistics are damaged, measure them again."
            )
    root = (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T
    shared = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0.0).sqrt().sum()
    apart = (left.mean - right.mean).square().sum()
    return float((apart + first.trace() + second.trace() - 2.0 * shared).clamp(min=0.0))

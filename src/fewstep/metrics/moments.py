"""Mean and covariance of a stream of features, in float64 and constant memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewstep.checks import as_integer, instance, shown
from fewstep.errors import InputError
from fewstep.processes.base import on_host
from fewstep.storage import DAMAGE, write_arrays

__all__ = ["Moments"]


class Moments:
    r"""Running mean and covariance of features, whatever their number.

    Batches are merged by Chan's update, which does not cancel: with n, μ, M = Σ(x − μ)(x − μ)ᵀ of what was
    seen and m, ν, N of the batch, M ← M + N + (ν − μ)(ν − μ)ᵀ·nm/(n + m). Source: Chan, Golub & LeVeque,
    Algorithms for Computing the Sample Variance (1983). The covariance is M/(n − 1).

    Args:
        features: the name and hash of what made the features ("" if unknown), so that no two are mixed.
    """

    @on_host
    def __init__(self, features: str = "") -> None:
        self.features = instance(str, "features", features, "give the name of what made the features")
        self.count = 0
        self._mean = torch.zeros(0, dtype=torch.float64)
        self._scatter = torch.zeros(0, 0, dtype=torch.float64)

    @on_host
    def update(self, batch: Tensor | np.ndarray) -> Moments:
        """Add features [n, d] and return self.

        Raises:
            InputError: if the shape does not fit, or a feature is not finite.
        """
        try:
            given = torch.as_tensor(batch)
            rows = given.real.detach().to("cpu", torch.float64)
        except (TypeError, ValueError, RuntimeError, OverflowError, NotImplementedError) as error:
            raise InputError(f"features are {shown(batch)}: give a tensor [n, d].") from error
        if given.is_complex():
            raise InputError("features are complex: give real numbers.")
        if rows.ndim != 2 or not rows.shape[1] or (self.count and rows.shape[1] != len(self._mean)):
            wanted = f"[n, {len(self._mean)}]" if self.count else "[n, d]"
            raise InputError(f"features have shape {tuple(rows.shape)}: give {wanted}.")
        if not bool(torch.isfinite(rows).all()):
            raise InputError("a feature is not finite: an image holds NaN or infinity; leave it out.")
        if not len(rows):
            return self
        mean = rows.mean(0)
        centred = rows - mean
        if not self.count:
            self._mean, self._scatter = mean * 0.0, torch.zeros(len(mean), len(mean), dtype=torch.float64)
        away = mean - self._mean
        total = self.count + len(rows)
        self._scatter += centred.T @ centred + torch.outer(away, away) * (self.count * len(rows) / total)
        self._mean += away * (len(rows) / total)
        self.count = total
        return self

    @property
    def mean(self) -> Tensor:
        """The mean, float64 [d]."""
        return self._mean

    @property
    def covariance(self) -> Tensor:
        """The covariance, float64 [d, d]; needs two samples or more."""
        if self.count < 2:
            raise InputError(f"there are {self.count} samples: a covariance needs at least 2.")
        return self._scatter / (self.count - 1)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what ``save`` writes."""
        return {
            "features": np.asarray(self.features),
            "count": np.asarray(self.count),
            "mean": self.mean.numpy(),
            "covariance": self.covariance.numpy(),
        }

    def save(self, path: Path) -> None:
        """Write count, mean, covariance and the features' name as an npz."""
        write_arrays(path, self.arrays())

    @classmethod
    def load(cls, path: Path) -> Moments:
        """Return what ``save`` wrote, or the ``mu`` and ``sigma`` of pytorch-fid and EDM, of unknown features.

        Raises:
            InputError: if the file is missing or damaged.
        """
        count: int | None
        try:
            with np.load(path, allow_pickle=False) as data:
                if "mu" in data:
                    name, count, mean, covariance = "", 2, data["mu"], data["sigma"]
                else:
                    name, count = str(data["features"]), as_integer(data["count"])
                    mean, covariance = data["mean"], data["covariance"]
        except DAMAGE as error:
            raise InputError(f"the statistics {str(path)!r} cannot be read ({error}): write them anew.") from error
        if count is None or not -1 < count < 2**63 or {mean.dtype.kind, covariance.dtype.kind} - set("fiu"):
            raise InputError(f"the statistics {str(path)!r} are no numbers: write them anew.")
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or count < 2:
            raise InputError(f"the statistics {str(path)!r} are {mean.shape} and {covariance.shape}: write them anew.")
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise InputError(f"the statistics {str(path)!r} hold NaN or infinity: write them anew.")
        moments = cls(name)
        moments.count = count
        moments._mean = torch.from_numpy(mean.astype(np.float64))
        moments._scatter = torch.from_numpy(covariance.astype(np.float64)) * (count - 1)
        return moments

"""Few modes that stand for all modes of a spectrum, and of the spectra beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fewstep.spectra.spectrum import Spectrum

__all__ = ["nodes"]

COUNT = 24
SCALES = (1.0 / 3.0, 1.0, 3.0)
LEAST = 1e-10
"""The smallest variance that is told from 0, in units of the largest."""


def nodes(spectrum: Spectrum, scales: Sequence[float] = SCALES, count: int = COUNT) -> tuple[Tensor, Tensor]:
    r"""Return variances and weights [K] with mean_k e(v_k)² ≈ Σ_j w_j·e(v_j)², for errors e smooth in log v.

    The modes are sorted into bins even in log v; each bin has the mean of its log v. The mean is that over the
    spectrum times each of ``scales``, divided by the scale: errors count relative to how much the data vary.
    """
    v = spectrum.variances.numpy()
    v, share = np.maximum(v, LEAST * v.max()), spectrum.multiplicities.numpy() / spectrum.size
    logs = np.concatenate([np.log(v * scale) for scale in scales])
    weights = np.concatenate([share / (scale * len(scales)) for scale in scales])
    low, high = logs.min(), logs.max()
    bins = np.minimum((logs - low) / max(high - low, 1e-9) * count, count - 1).astype(int)
    sums, places = np.bincount(bins, weights, count), np.bincount(bins, weights * logs, count)
    used = sums > 0
    return torch.from_numpy(np.exp(places[used] / sums[used])), torch.from_numpy(sums[used])

"""Metrics of samples of features: KID, MMD, CMMD, and precision, recall, density and coverage.

Each is computed where the features are, and in float64: the first three are small differences of large means, of which
float32 would leave little. Features on a device without float64 (MPS) are compared on the CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from fewstep.errors import InputError, MissingPackageError
from fewstep.processes.base import HOST, on_host

__all__ = ["cmmd", "kid", "mmd", "prdc"]

ROWS = 1000
CMMD_WIDTH, CMMD_SCALE = 10.0, 1000.0


@on_host
def kid(features: Tensor, reference: Tensor, *, subsets: int = 100, subset_size: int = 1000) -> tuple[float, float]:
    r"""Return the kernel inception distance: mean and deviation over subsets of the unbiased MMD².

    The kernel is (x·y/d + 1)³. Source: Bińkowski et al. (arXiv 1801.01401). Computed by ``torchmetrics``; the
    subsets are the same in each run and on each device, and at most as large as the smaller set.

    Raises:
        InputError: if a set has fewer than two features.
        MissingPackageError: if torchmetrics is not installed.
    """
    try:
        from torchmetrics.image.kid import KernelInceptionDistance
    except ImportError as error:
        raise MissingPackageError(f"kid needs torchmetrics ({error}): pip install 'fewstep[eval]'.") from error
    x, y = _checked(features, reference)
    size = min(subset_size, len(x), len(y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps all features, which are few here
        metric = KernelInceptionDistance(torch.nn.Identity(), subsets=subsets, subset_size=size)
    metric.update(y, real=True)
    metric.update(x, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would reach the states of GPUs too
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def mmd(features: Tensor, reference: Tensor) -> float:
    r"""Return the unbiased MMD² with the kernel exp(−\|x − y\|²/2s²), s the median distance in the reference.

    Source: Gretton et al., A Kernel Two-Sample Test (JMLR 2012), equation 3; the median of the distances between
    the first 1000 features of the reference.

    Raises:
        InputError: if a set has fewer than two features.
    """
    x, y = _checked(features, reference)
    scale = 2.0 * torch.pdist(y[:ROWS]).median().clamp(min=1e-12) ** 2

    def kernel(some: Tensor, others: Tensor) -> float:
        return sum(float((-rows.square() / scale).exp().sum()) for rows in _distances(some, others))

    n, m = len(x), len(y)
    within = (kernel(x, x) - n) / (n * (n - 1)) + (kernel(y, y) - m) / (m * (m - 1))
    return within - 2.0 * kernel(x, y) / (n * m)


def cmmd(features: Tensor, reference: Tensor) -> float:
    r"""Return 1000 times the MMD² of features of unit length, with the kernel exp(−\|x − y\|²/2σ²) of width σ = 10.

    The means run over all pairs, those of a feature with itself included, so that 0 is the least. With CLIP's image
    embeddings as features it is the CMMD.

    Source: Jayasumana et al., Rethinking FID (arXiv 2401.09603), section 4, as its public code computes it.

    Raises:
        InputError: if a set has fewer than two features, or a feature is zero.
    """
    x, y = _checked(features, reference)
    lengths = torch.cat([x.norm(dim=1), y.norm(dim=1)])
    if not bool((lengths > 0).all()):
        raise InputError("a feature is zero throughout: it has no direction, so cmmd is not defined.")
    x, y = x / lengths[: len(x), None], y / lengths[len(x) :, None]

    def apart(some: Tensor, others: Tensor) -> float:
        """Return the mean of 1 − k, which is small, so that nothing is lost in the difference."""
        parts = (-torch.expm1(rows.square() / (-2.0 * CMMD_WIDTH**2)) for rows in _distances(some, others))
        return sum(float(part.sum()) for part in parts) / (len(some) * len(others))

    return CMMD_SCALE * (2.0 * apart(x, y) - apart(x, x) - apart(y, y))


def prdc(features: Tensor, reference: Tensor, *, nearest: int = 5) -> dict[str, float]:
    """Return precision, recall, density and coverage with balls to the k-th nearest neighbour.

    Both sets are cut to the size of the smaller one, since the four depend on the numbers. Source: Kynkäänniemi et
    al. (arXiv 1904.06991), Naeem et al. (arXiv 2002.09797), equations 1 to 4. No kept library without torchvision
    has density and coverage, so the four are counted here.

    Raises:
        InputError: if there are no more than k features in a set.
    """
    x, y = _checked(features, reference)
    count = min(len(x), len(y))
    if count <= nearest:
        raise InputError(f"there are {count} samples: prdc looks at {nearest} neighbours and needs more.")
    x, y = x[:count], y[:count]
    ball_x, ball_y = _radii(x, nearest), _radii(y, nearest)
    precise = recalled = covered = inside = 0
    for rows, radii in zip(_distances(y, x), ball_y.split(ROWS), strict=True):
        within = rows < radii[:, None]
        inside += int(within.sum())
        covered += int(within.any(1).sum())
        recalled += int((rows < ball_x).any(1).sum())
    for rows in _distances(x, y):
        precise += int((rows < ball_y).any(1).sum())
    return {
        "precision": precise / count,
        "recall": recalled / count,
        "density": inside / (nearest * count),
        "coverage": covered / count,
    }


def _distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Yield the distances of ``ROWS`` rows of x at a time to all of y."""
    for rows in x.split(ROWS):
        yield torch.cdist(rows, y, compute_mode="donot_use_mm_for_euclid_dist")


def _radii(x: Tensor, nearest: int) -> Tensor:
    return torch.cat([rows.kthvalue(nearest + 1, dim=1).values for rows in _distances(x, x)])


def _checked(features: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Return both sets in float64 where the features are, if they can be compared."""
    if min(len(features), len(reference)) < 2:
        raise InputError(f"there are {len(features)} and {len(reference)} samples: at least 2 are needed on each side.")
    if features.shape[1:] != reference.shape[1:]:
        raise InputError(
            f"the features have {features.shape[1]} and {reference.shape[1]} dimensions: take the same for both."
        )
    place = features.device if _has_float64(features.device) else HOST
    return features.to(place).double(), reference.to(place).double()


def _has_float64(device: torch.device) -> bool:
    try:
        torch.empty(0, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return False
    return True

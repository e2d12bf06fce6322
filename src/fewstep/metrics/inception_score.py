"""The inception score: how sure a classifier is of each image, and how evenly images fall into its classes."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from fewstep.errors import InputError, MissingPackageError
from fewstep.processes.base import on_host

__all__ = ["inception_score"]

SPLITS = 10
LEAST = -700.0
"""The least logit below the largest: probabilities below e^−700 would be 0 in float64, and the score NaN."""


@on_host
def inception_score(logits: Tensor, *, splits: int = SPLITS) -> tuple[float, float]:
    r"""Return exp(mean KL(p(y|x) ‖ p(y))): mean and standard deviation over splits of the images.

    1 where every image has the same class probabilities, the number of classes where each is certain and they are
    even. No reference enters. Computed by ``torchmetrics``; the splits are the same in each run, and of at least two
    images each.

    Source: Salimans et al., Improved Techniques for Training GANs (arXiv 1606.03498), section 4.

    Args:
        logits: of the images, [n, classes].
        splits: how many parts of the images are scored apart.

    Raises:
        InputError: if there are fewer than four images.
        MissingPackageError: if torchmetrics is not installed.
    """
    try:
        from torchmetrics.image.inception import InceptionScore
    except ImportError as error:
        raise MissingPackageError(f"is needs torchmetrics ({error}): pip install 'fewstep[eval]'.") from error
    if len(logits) < 4:
        raise InputError(f"there are {len(logits)} images: the inception score needs at least 4.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps all logits, which are few here
        metric = InceptionScore(torch.nn.Identity(), splits=min(splits, len(logits) // 2))
    logits = logits.detach().cpu().double()
    metric.update((logits - logits.amax(1, keepdim=True)).clamp(min=LEAST))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would reach the states of GPUs too
        mean, deviation = metric.compute()
    return float(mean), float(deviation)

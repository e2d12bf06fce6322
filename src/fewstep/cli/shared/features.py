"""``--features``: the known ones of a model, the way to others, and how many images they take."""

from __future__ import annotations

from fewstep import metrics
from fewstep.errors import InputError
from fewstep.metrics import Extractor
from fewstep.models import zoo

__all__ = ["few_images", "known_features", "needed_features"]

NONE = "none"
TIMES = 10
"""Images to a dimension below which a Fréchet distance is said to be of few: the covariance's relative error is about
√(dimensions / images), so above a third."""


def known_features(name: str | None, model: str) -> str | None:
    """Return the features that ``--features`` names, or those of an embedded model; None where there are none."""
    if name is None:
        return model if model in zoo.MODELS else None
    return None if name == NONE else name


def needed_features(name: str | None, model: str, what: str, device: str) -> Extractor:
    """Return the features for ``what``, which cannot be measured without.

    Raises:
        InputError: if none are known for the model, with the way to get some, or there are none of that name.
    """
    known = known_features(name, model)
    if known is None:
        raise InputError(
            f"{what} compares images in features, and none are known for {model!r}: give --features torchscript:FILE, "
            "inception:FILE or dinov2:FOLDER, and --reference with real images (docs/measure.md says how to get them)."
        )
    return metrics.features(known, device)


def few_images(images: int, dimensions: int, what: str) -> str | None:
    """Return a sentence if so many images say little about a distance in so many dimensions.

    Of fewer images than dimensions ``frechet_distance`` warns itself.
    """
    if not dimensions <= images < TIMES * dimensions:
        return None
    return (
        f"{what} of {images} images in {dimensions} dimensions is of few: chance moves it, and it falls with their "
        f"number; take {TIMES * dimensions} or more, and compare equal numbers only."
    )

"""Metrics: features of images, and distances between sets of them."""

from fewstep.metrics.extractor import Extractor, features, reference
from fewstep.metrics.frechet import frechet_distance, moments_of
from fewstep.metrics.moments import Moments
from fewstep.metrics.pixels import from_uint8, to_uint8

__all__ = ["Extractor", "Moments", "features", "frechet_distance", "from_uint8", "moments_of", "reference", "to_uint8"]

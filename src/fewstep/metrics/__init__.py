"""How good samples are: features of images, and distances between sets of them."""

from fewstep.metrics.extractor import Extractor, features, from_uint8, reference
from fewstep.metrics.frechet import frechet_distance, moments_of
from fewstep.metrics.moments import Moments

__all__ = ["Extractor", "Moments", "features", "frechet_distance", "from_uint8", "moments_of", "reference"]

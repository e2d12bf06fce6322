"""Models that come with the package and work offline."""

from fewstep.zoo.embedded import MODELS, load

__all__ = ["MODELS", "load"]

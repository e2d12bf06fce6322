"""Other people's models inside fewstep: the embedded ones, pipelines, research checkpoints, entry points."""

from fewstep.models import zoo

__all__ = ["zoo"]

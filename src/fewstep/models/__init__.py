"""Other people's models inside fewstep: the embedded ones, pipelines, research checkpoints, entry points."""

from fewstep.models import zoo
from fewstep.models.pipeline_denoiser import PipelineDenoiser, from_pipeline

__all__ = ["PipelineDenoiser", "from_pipeline", "zoo"]

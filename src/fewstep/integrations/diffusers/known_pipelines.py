"""Pipelines that compute around their scheduler, and pipelines with special needs."""

from __future__ import annotations

from typing import Any

from fewstep.errors import InputError

__all__ = ["check_replaceable", "needed_settings"]

TIED = {
    "ChronoEditPipeline": "shortens its scheduler's history in the middle of a run",
    "CosmosTextToWorldPipeline": "asks its scheduler for its preconditioning and for x0",
    "CosmosVideoToWorldPipeline": "asks its scheduler for its preconditioning and for x0",
    "LEditsPPPipelineStableDiffusion": "inverts images with its scheduler's own noise",
    "LEditsPPPipelineStableDiffusionXL": "inverts images with its scheduler's own noise",
    "LTXConditionPipeline": "gives each token a time of its own",
    "LTXI2VLongMultiPromptPipeline": "leaves out the scheduler's last step, so that noise would stay",
    "LatentConsistencyModelImg2ImgPipeline": "runs a consistency model, which predicts the end of its trajectory",
    "LatentConsistencyModelPipeline": "runs a consistency model, which predicts the end of its trajectory",
    "StableDiffusionLatentUpscalePipeline": "computes with x_0 + σ·ε, the state of Euler's scheduler, itself",
}
"""Pipelines by the name of their class, and what ties them to their scheduler."""
WHOLE_INDICES = ("KandinskyImg2ImgPipeline", "KandinskyImg2ImgCombinedPipeline")
"""Pipelines that look a table up at a timestep."""


def check_replaceable(pipe: Any) -> None:
    """Refuse a pipeline whose scheduler cannot be replaced.

    Raises:
        InputError: with the reason.
    """
    for name in _names(pipe):
        if name in TIED:
            raise InputError(f"{name} {TIED[name]}: keep its scheduler.")


def needed_settings(pipe: Any) -> dict[str, Any]:
    """Return the settings of a ``FewStepScheduler`` without which the pipeline fails."""
    return {"integer_timesteps": True} if any(name in WHOLE_INDICES for name in _names(pipe)) else {}


def _names(pipe: Any) -> list[str]:
    return [kind.__name__ for kind in type(pipe).__mro__]

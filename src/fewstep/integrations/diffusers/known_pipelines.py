"""Pipelines that compute around their scheduler, and pipelines with special needs."""

from __future__ import annotations

import inspect
from collections.abc import Container, Iterable
from typing import Any, NamedTuple

from fewstep.errors import InputError

__all__ = ["Branches", "boundary_timestep", "branches_of", "check_replaceable", "check_takes", "needed_settings"]

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


THREE_BRANCHES = ("PAG", "Pix2Pix", "OmniGen", "DreamLite", "PipelineSafe")
"""Parts of the names of pipelines whose guidance has a third branch."""
CALLED_TWICE = (
    "BriaFibo",
    "Chroma",
    "CogView4",
    "Cosmos",
    "ErnieImage",
    "Flux",
    "GlmImage",
    "Helios",
    "HunyuanImage",
    "HunyuanSkyreels",
    "HunyuanVideo",
    "JoyImage",
    "Kandinsky5",
    "Kandinsky6",
    "Krea",
    "LongCat",
    "Lucy",
    "Lumina2",
    "MotifVideo",
    "Nucleus",
    "Ovis",
    "QwenImage",
    "SkyReels",
    "Wan",
)
"""Beginnings of the names of pipelines that call their network once for each branch, the condition's first."""
CONDITION_FIRST = ("DiT", "LuminaPipeline", "LuminaText2Img", "StableCascade", "Wuerstchen", "ZImage")
"""Beginnings of the names of pipelines whose batch of both branches begins with the condition's."""


class Branches(NamedTuple):
    """How a pipeline evaluates the branches of its guidance.

    Attributes:
        batched: whether both may be one batch.
        condition_first: whether the condition's half comes first in it.
    """

    batched: bool
    condition_first: bool


def branches_of(pipe: Any) -> Branches:
    """Return how a pipeline evaluates the branches of its guidance.

    Raises:
        InputError: if there are three of them.
    """
    kinds = _names(pipe)
    if any(part in kinds[0] for part in THREE_BRANCHES):
        raise InputError(f"{kinds[0]} guides by three branches: leave guidance_interval out.")
    return Branches(
        not any(name.startswith(CALLED_TWICE) for name in kinds),
        any(name.startswith(CONDITION_FIRST) for name in kinds),
    )


def boundary_timestep(pipe: Any) -> float | None:
    """Return the timestep from which on upwards a pipeline calls the first of two experts; None if it has one network.

    The second, ``transformer_2``, is called below it (Wan 2.2, whose ``boundary_ratio`` is this timestep over the
    number of training timesteps).
    """
    ratio = getattr(getattr(pipe, "config", None), "boundary_ratio", None)
    if ratio is None or getattr(pipe, "transformer", None) is None or getattr(pipe, "transformer_2", None) is None:
        return None
    return float(ratio) * pipe.scheduler.config.num_train_timesteps


def check_replaceable(pipe: Any) -> None:
    """Refuse a pipeline whose scheduler cannot be replaced.

    Raises:
        InputError: with the reason.
    """
    for name in _names(pipe):
        if name in TIED:
            raise InputError(f"{name} {TIED[name]}: keep its scheduler.")


def check_takes(kind: type, names: Iterable[str], besides: Container[str] = ()) -> None:
    """Refuse what a class of pipelines is not called with.

    Args:
        kind: the class.
        names: of what it is to be called with.
        besides: what is not said to be taken.

    Raises:
        InputError: with what it takes.
    """
    taken = [name for name in inspect.signature(kind.__call__).parameters if name != "self" and name not in besides]
    for name in names:
        if name not in taken:
            raise InputError(f"{kind.__name__} takes no {name!r}: it takes {', '.join(taken)}.")


def needed_settings(pipe: Any) -> dict[str, Any]:
    """Return the settings of a ``FewStepScheduler`` without which the pipeline fails."""
    return {"integer_timesteps": True} if any(name in WHOLE_INDICES for name in _names(pipe)) else {}


def _names(pipe: Any) -> list[str]:
    return [kind.__name__ for kind in type(pipe).__mro__]

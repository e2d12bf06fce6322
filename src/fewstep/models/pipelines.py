"""A diffusers pipeline folder as a model: its network, its process, its decoder and its text encoder."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn

from fewstep.checks import real
from fewstep.denoiser import Condition, DataPredictor, Denoiser
from fewstep.errors import FewstepError, InputError, MissingPackageError, reason_of
from fewstep.guidance import DynamicThreshold, StaticThreshold
from fewstep.models.folder import check_folder
from fewstep.models.model import Kind, Model
from fewstep.models.pipeline_denoiser import PipelineDenoiser, check_call, from_pipeline
from fewstep.plan import Plan
from fewstep.processes import Process
from fewstep.time_grid import TimeGrid

__all__ = ["asks_scheduler", "coder_of", "is_pipeline", "load_pipeline", "read_pipeline", "whole_model"]

OF_NETWORKS = (
    "DDIMPipeline",
    "DDPMPipeline",
    "DiTPipeline",
    "LDMPipeline",
    "PNDMPipeline",
    "StableDiffusionPipeline",
)
"""Pipelines whose network is all that their loop calls."""
LARGEST = 8192
"""The most pixels along a side of a sample."""


def is_pipeline(path: Path) -> bool:
    """Whether ``path`` is a folder that ``DiffusionPipeline.save_pretrained`` wrote."""
    return (path / "model_index.json").is_file()


def load_pipeline(
    path: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32, call: Mapping[str, Any] | None = None
) -> Model:
    """Return a pipeline as a model.

    Its network is the model where that is called with classes or a text's states alone (unconditional pipelines, DiT,
    Stable Diffusion 1 and 2); any other pipeline that takes ``latents``, and one that is given a ``call``, is called as
    a whole (``fs.models.from_pipeline``).

    Only safetensors are read and no code of the folder is run. The process, the prediction and the clipping of x0
    are those of the pipeline's scheduler; the scheduler itself is what fewstep replaces.

    Args:
        path: the folder.
        device: where the pipeline lives.
        dtype: the type of its parameters; the state stays float32.
        call: what the pipeline is called with beside its prompt: height, num_frames, negative_prompt, ….

    Raises:
        InputError: if the folder cannot be loaded, or its kind of pipeline is another one, or takes no such call.
        MissingPackageError: if diffusers is not installed.
    """
    if find_spec("diffusers") is None:
        raise MissingPackageError(f"{str(path)!r} is a diffusers pipeline: pip install 'fewstep[diffusers]'.")
    if call:
        _check_class_takes(path, call)
    pipeline = read_pipeline(path, dtype).to(device)
    if call or type(pipeline).__name__ not in OF_NETWORKS:
        return _whole(pipeline, call or {})
    network: Any = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    network.eval().requires_grad_(False)
    denoiser, null = _denoiser(pipeline, network)
    embed = _embedding(pipeline) if hasattr(pipeline, "encode_prompt") else None
    if embed is not None:
        null = embed([""])
    parts = [getattr(pipeline, name, None) for name in ("vae", "vqvae", "text_encoder")]
    decode, encode = _coder(pipeline)
    found = tuple(part for part in parts if part is not None)
    return Model(denoiser, decode, embed, found, encode, null, partial(_default, pipeline, denoiser.process))


def _default(pipeline: Any, process: Process, steps: int) -> tuple[str, Plan]:
    """Return the name of the pipeline's scheduler, and what it runs in ``steps`` steps as a plan."""
    from fewstep.integrations.diffusers.counterpart import default_plan

    classes = {"class_labels": [0]} if "class_labels" in inspect.signature(pipeline.__call__).parameters else {}
    name, plan = default_plan(pipeline, steps, classes)
    return name, replace(plan, grid=TimeGrid(process, plan.times))


def read_pipeline(path: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Return the diffusers pipeline in a folder; only safetensors are read, and no code of the folder is run.

    Raises:
        InputError: if it cannot be loaded, names code of its own, or lacks weights.
    """
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging

    parts = check_folder(path)
    logging.disable_progress_bar()
    if any(isinstance(part, list) and part[0] == "transformers" for part in parts.values()):
        from transformers.utils import logging as of_transformers

        of_transformers.disable_progress_bar()
    try:
        without = {"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in parts else {}
        with warnings.catch_warnings():
            # Newer versions call it dtype; the old name is the one that all of them know.
            warnings.filterwarnings("ignore", "`torch_dtype` is deprecated", FutureWarning)
            pipeline = DiffusionPipeline.from_pretrained(
                path,
                local_files_only=True,
                use_safetensors=True,
                torch_dtype=dtype,
                low_cpu_mem_usage=find_spec("accelerate") is not None,  # Otherwise a notice says that it is missing.
                **without,
            )
    except (torch.cuda.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # Whatever the libraries make of a damaged folder.
        raise InputError(f"the pipeline {str(path)!r} cannot be loaded: {reason_of(error)}") from error
    for part, network in pipeline.components.items():
        if isinstance(network, nn.Module):
            absent = [name for name, value in network.state_dict().items() if value.is_meta]
            if absent:
                raise InputError(
                    f"the pipeline {str(path)!r} lacks {len(absent)} tensors of {part} ({absent[0]}, …): its weights "
                    "are of another version or not all there; save or download it again."
                )
    return pipeline


def _check_class_takes(path: Path, call: Mapping[str, Any]) -> None:
    """Refuse a call that the class of a folder does not take, before anything large is read."""
    check_call(_class_of(path), call)


def _class_of(path: Path) -> type:
    import diffusers

    return cast(type, getattr(diffusers, check_folder(path)["_class_name"]))


def asks_scheduler(path: Path) -> bool:
    """Whether the pipeline in a folder asks its scheduler what the network is to be given, before each call."""
    return "scale_model_input" in inspect.getsource(_class_of(path).__call__)


def _whole(pipeline: Any, call: Mapping[str, Any]) -> Model:
    """Return a pipeline that is called for one step at a time as a model."""
    takes_prompts = "prompt" in inspect.signature(pipeline.__call__).parameters
    model = whole_model(from_pipeline(pipeline, **({"prompt": ""} if takes_prompts else {}), **call))
    assert isinstance(model.denoiser, PipelineDenoiser)
    return replace(model, embed=model.denoiser.add_prompts) if takes_prompts else model


def whole_model(denoiser: PipelineDenoiser) -> Model:
    """Return a pipeline that is called for one step at a time with its decoder and what it runs by itself."""
    kind, rate = _kind(denoiser)

    def decode(samples: Tensor) -> Tensor:
        made = torch.as_tensor(denoiser.decode(samples, output_type="pt")).float()
        return made if kind == "audio" else made * 2.0 - 1.0

    networks = [part for part in denoiser.original.components.values() if isinstance(part, nn.Module)]
    parts = tuple(part for part in networks if part is not denoiser.network)
    return Model(denoiser, decode, parts=parts, default=denoiser.default, kind=kind, rate=rate)


def _kind(denoiser: PipelineDenoiser) -> tuple[Kind, float | None]:
    """Return what a pipeline makes, and how much of it a second, by what it is called with and its parts."""
    pipe = denoiser.original
    parameters = inspect.signature(pipe.__call__).parameters
    if any(name.startswith("audio_") for name in parameters):
        configs = (getattr(getattr(pipe, name, None), "config", None) for name in ("vocoder", "vae"))
        rates = (getattr(config, "sampling_rate", None) for config in configs)
        return "audio", next((float(rate) for rate in rates if rate), None)
    if not {"num_frames", "video_length"}.isdisjoint(parameters):
        rate = denoiser.call.get("frame_rate", getattr(parameters.get("frame_rate"), "default", None))
        return "videos", float(rate) if isinstance(rate, (int, float)) else None
    return "images", None


def _denoiser(pipeline: Any, network: Any) -> tuple[DataPredictor, Condition | int]:
    """Return the network as a denoiser, and its null class if it has one."""
    from fewstep.integrations.diffusers import FewStepScheduler
    from fewstep.integrations.diffusers.formulation import EDMFormulation, alphas_cumprod_of, formulation_of

    config = FewStepScheduler.from_config(pipeline.scheduler.config).config
    formulation = formulation_of(config, alphas_cumprod_of(config))
    edm = isinstance(formulation, EDMFormulation)
    if getattr(formulation, "inverted", False) or (edm and formulation.prediction != "epsilon"):
        raise InputError(
            "the pipeline's scheduler counts time or signs its output in another way: use "
            "fewstep.integrations.diffusers.FewStepScheduler inside it."
        )
    channels, sides = network.config.in_channels, _sides(network)
    classes = getattr(network.config, "num_class_embeds", None)
    null = None
    if type(network).__name__ == "DiTTransformer2DModel":
        classes = null = network.config.num_embeds_ada_norm
    denoiser: DataPredictor = Denoiser(
        _Called(network, channels),
        formulation.process,
        "edm" if edm else formulation.prediction,
        shape=(channels, *sides),
        num_classes=classes,
        default_cond=null,
        network_time=None if edm else formulation.network_time,
        sigma_data=config.sigma_data or 0.5,
    )
    if config.thresholding:
        denoiser = DynamicThreshold(denoiser, config.dynamic_thresholding_ratio, config.sample_max_value)
    elif config.clip_sample and not hasattr(pipeline, "vae") and not hasattr(pipeline, "vqvae"):
        denoiser = StaticThreshold(denoiser, config.clip_sample_range)
    return denoiser, null


def _sides(network: Any) -> tuple[int, int]:
    """Return height and width of the samples.

    Raises:
        InputError: if the configuration says nothing that the network can take.
    """
    size: Any = network.config.sample_size
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, (list, tuple)) else ()
    if len(sides) != 2 or not all(type(side) is int and 0 < side <= LARGEST for side in sides):
        raise InputError(
            f"sample_size of the pipeline's network is {size!r}: its configuration must say the height and width of a "
            f"sample, from 1 to {LARGEST}."
        )
    least = 1
    if type(network).__name__ == "UNet2DModel":
        least = 2 ** (len(network.config.block_out_channels) - 1)
    elif isinstance(getattr(network.config, "patch_size", None), int):
        least = network.config.patch_size
    if any(side % least for side in sides):
        raise InputError(f"sample_size of the pipeline's network is {size!r}, which must be a multiple of {least}.")
    return sides


class _Called(nn.Module):
    """A diffusers network as (x, time, classes or keywords) → prediction; a learned variance is cut off."""

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.network, self.channels = network, channels

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None, **keywords: Any) -> Tensor:
        """Return the prediction, shaped like ``x``.

        Raises:
            InputError: without labels, if the network needs a class; or its configuration does not fit its code.
        """
        if labels is not None:
            keywords["class_labels"] = labels
        elif getattr(self.network, "class_embedding", None) is not None:
            raise InputError("this model needs a class for each image: give --class N or each (cond=… in Python).")
        try:
            return self.network(x, time, **keywords).sample[:, : self.channels]
        except Exception as error:
            _refuse(f"the pipeline's {type(self.network).__name__}", "its config.json", error)


def _refuse(what: str, where: str, error: Exception) -> NoReturn:
    """Say that what a folder describes fails, whatever its libraries make of it; memory and fewstep have own words."""
    if isinstance(error, (FewstepError, MemoryError, torch.cuda.OutOfMemoryError)):
        raise error
    raise InputError(
        f"{what} fails in a call ({reason_of(error)}): {where} may be damaged, or of another model or diffusers."
    ) from error


def _coder(pipeline: Any) -> tuple[Callable[[Tensor], Tensor] | None, Callable[[Tensor], Tensor] | None]:
    """Return the way from samples to images and back (the mean of a variational encoder's posterior)."""
    coder = getattr(pipeline, "vae", None) or getattr(pipeline, "vqvae", None)
    return (None, None) if coder is None else coder_of(coder)


def coder_of(coder: Any) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Return the way from samples to images and back by an autoencoder of diffusers, put into evaluation mode.

    Raises:
        InputError: if its scale or shift is no number; and, from both, if its configuration does not fit its code.
    """
    coder.eval().requires_grad_(False)
    what = f"the {type(coder).__name__} of the model"
    scale = real(f"scaling_factor of {what}", coder.config.scaling_factor)
    shift = real(f"shift_factor of {what}", getattr(coder.config, "shift_factor", None) or 0.0)
    if scale == 0.0:
        raise InputError(f"scaling_factor of {what} is 0: its configuration is damaged.")

    def decode(latents: Tensor) -> Tensor:
        try:
            return coder.decode((latents / scale + shift).to(coder.dtype)).sample.float()
        except Exception as error:
            _refuse(what, "its configuration", error)

    @torch.no_grad()
    def encode(images: Tensor) -> Tensor:
        try:
            made = coder.encode(images.to(coder.device, coder.dtype))
            latents = made.latent_dist.mode() if hasattr(made, "latent_dist") else made.latents
        except Exception as error:
            _refuse(what, "its configuration", error)
        return (latents.float() - shift) * scale

    return decode, encode


def _embedding(pipeline: Any) -> Callable[[Sequence[str]], Mapping[str, Any]]:
    @torch.no_grad()
    def embed(prompts: Sequence[str]) -> Mapping[str, Any]:
        try:
            states, _ = pipeline.encode_prompt(list(prompts), pipeline.device, 1, do_classifier_free_guidance=False)
        except Exception as error:
            _refuse("the pipeline's text encoder", "a configuration of it or of the tokenizer", error)
        return {"encoder_hidden_states": states}

    return embed

"""``--model``: an embedded name, a pipeline folder, a Python entry or an EDM pickle."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import torch

from fewstep import checks
from fewstep.cli.settings.options import ModelSettings
from fewstep.cli.shared.calls import call_of
from fewstep.errors import InputError, unknown_name
from fewstep.guidance import guidance_named
from fewstep.models import zoo
from fewstep.models.loading import load_edm_pickle, load_entry
from fewstep.models.model import Model
from fewstep.models.pipelines import is_pipeline, load_pipeline

__all__ = ["check_device", "is_slow", "load_model"]

SLOWER = 3.0
"""Ratio of times to float32's from which a type is warned about: where the CPU has instructions for the type, it is
about as quick; where it has none, tens of times slower."""
DTYPES = ("float32", "bfloat16", "float16")


def load_model(settings: ModelSettings, guidance: str | None = None, device: str | None = None) -> Model:
    """Return the model that ``--model`` names, on ``device``, which is ``--device`` unless another one is given.

    Without ``guidance`` a pipeline that guides itself has its default, and other models have none.

    Raises:
        InputError: if there is none of that name, it is a pickle and pickles are not trusted, or the type is unknown
            or not to be chosen.
    """
    name, dtype, device = settings.model, settings.dtype, device or settings.device
    if guidance is not None:
        guidance_named(guidance)  # Refused before anything is loaded.
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    call = call_of(settings.call, guidance)
    check_device(device)
    path, kind = Path(name), getattr(torch, dtype)
    is_pickle, is_entry = path.suffix in (".pkl", ".pickle", ".pt", ".pth"), ":" in name
    if (is_pickle or is_entry) and dtype != "float32":
        raise InputError(f"--dtype is {dtype}: this model sets its type itself; leave it out, or change it there.")
    if is_slow(device, kind):
        warnings.warn(
            f"this CPU has no instructions for {dtype}, and computes it slower than float32: leave --dtype out, or run "
            "on a GPU.",
            UserWarning,
            stacklevel=2,
        )
    if is_pipeline(path):
        return load_pipeline(path, device=device, dtype=kind, call=call).guided(guidance)
    if path.is_dir():
        raise InputError(f"--model is the folder {name!r}, which has no model_index.json: give a diffusers pipeline.")
    if call:
        raise InputError(f"--call {settings.call[0]} is for the folder of a pipeline: {name!r} is none; leave it out.")
    if (is_pickle or is_entry) and guidance is not None and guidance_named(guidance).scale != 1.0:
        raise InputError(
            f"--guidance is {guidance}: this model has no known null condition; apply guidance in its own code."
        )
    if is_pickle:
        if not settings.trust_pickle:
            raise InputError(f"{name!r} is a pickle, and loading one runs code: add --trust-pickle if you trust it.")
        return load_edm_pickle(path, device=device)
    if is_entry:
        made = load_entry(name)
        place, wanted = made.denoiser.device, torch.device(device)
        if place.type != wanted.type or (wanted.index is not None and place.index not in (None, wanted.index)):
            raise InputError(
                f"--device is {device}, but {name} returned a model on {place}: move it there in "
                "the function, or write its --device."
            )
        return made
    if name not in zoo.MODELS:
        raise InputError(
            f"--model is {name!r}, which is neither an embedded model ({', '.join(zoo.MODELS)}) nor a folder here: "
            "give a folder that save_pretrained wrote; models are not downloaded by name."
        )
    return zoo.model(name, device=device, dtype=kind).guided(guidance)


def is_slow(device: str, kind: torch.dtype) -> bool:
    """Whether half precision costs a CPU several times what float32 does, by a small convolution in both."""
    if kind is torch.float32 or torch.device(device).type != "cpu":
        return False
    return _seconds(kind) > SLOWER * _seconds(torch.float32)


def _seconds(kind: torch.dtype) -> float:
    """Return the shortest of three times that the convolution takes."""
    images, weights = torch.ones(1, 64, 32, 32, dtype=kind), torch.ones(64, 64, 3, 3, dtype=kind)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        torch.nn.functional.conv2d(images, weights, padding=1)
        times.append(time.perf_counter() - began)
    return min(times)


def check_device(device: str) -> None:
    """Refuse a device that is not here.

    Raises:
        InputError: with what torch says of it.
    """
    checks.device("--device", device)

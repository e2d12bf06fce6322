"""The embedded models by name."""

from __future__ import annotations

from importlib import resources
from importlib.util import find_spec

import torch

from fewstep.denoiser import DataPredictor, Denoiser
from fewstep.errors import MissingPackageError, unknown_name
from fewstep.guidance import ClassifierFree
from fewstep.processes import VPDiscrete

__all__ = ["MODELS", "load"]

MODELS = {"fashion-mnist": "ten classes of clothes, 1×32×32 pixels in [−1, 1]; class-conditional, v-prediction"}
NULL_CLASS = 10


def load(
    name: str, *, guidance_scale: float = 1.0, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> DataPredictor:
    """Return an embedded model as a denoiser, in evaluation mode.

    Conditions are class numbers; without one the model is unconditional. The network itself, a diffusers
    ``UNet2DModel``, is the denoiser's ``.network`` (``.inner.network`` under guidance).

    Args:
        name: "fashion-mnist".
        guidance_scale: classifier-free guidance, 1 for none.
        device: where the network lives.
        dtype: the type of the network's parameters; the state stays float32.

    Raises:
        InputError: if there is no such model.
        MissingPackageError: if diffusers, whose ``UNet2DModel`` the network is, is not installed.
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    if find_spec("diffusers") is None:
        raise MissingPackageError(f"the model {name!r} is a diffusers network: pip install 'fewstep[diffusers]'.")
    from diffusers import UNet2DModel

    folder = resources.files("fewstep.models") / name.replace("-", "_")
    with resources.as_file(folder) as path:
        network = UNet2DModel.from_pretrained(path, torch_dtype=dtype)
    network = network.to(device).eval().requires_grad_(False)
    model = Denoiser(network, VPDiscrete.from_betas(), "v", shape=(1, 32, 32), num_classes=10, default_cond=NULL_CLASS)
    return model if guidance_scale == 1.0 else ClassifierFree(model, guidance_scale, NULL_CLASS)

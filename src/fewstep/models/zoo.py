"""The embedded models by name."""

from __future__ import annotations

from importlib import resources
from importlib.util import find_spec

import torch
from safetensors.torch import load_file

from fewstep import checks
from fewstep.checks import as_word
from fewstep.denoiser import DataPredictor, Denoiser
from fewstep.errors import MissingPackageError
from fewstep.models.model import Model
from fewstep.processes import VPDiscrete

__all__ = ["MODELS", "load", "model"]

MODELS = {"fashion-mnist": "ten classes of clothes, 1×32×32 pixels in [−1, 1]; class-conditional, v-prediction"}
NULL_CLASS = 10


def load(
    name: str,
    *,
    guidance_scale: float | str = 1.0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> DataPredictor:
    """Return an embedded model as a denoiser, in evaluation mode.

    Conditions are class numbers; without one the model is unconditional. The network itself, a diffusers
    ``UNet2DModel``, is the denoiser's ``.network`` (``.inner.network`` under guidance).

    Args:
        name: "fashion-mnist".
        guidance_scale: classifier-free guidance, 1 for none, with settings if wanted (see ``Model.guided``).
        device: where the network lives.
        dtype: the type of the network's parameters; the state stays float32.

    Raises:
        InputError: if there is no such model or device, or the type is not one of real numbers.
        MissingPackageError: if diffusers, whose ``UNet2DModel`` the network is, is not installed.
    """
    return model(name, device=device, dtype=dtype).guided(guidance_scale).denoiser


def model(name: str, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Model:
    """Return an embedded model with its null class; arguments and errors are those of ``load``."""
    as_word("model", name, MODELS)
    place, kind = checks.device("device", device), checks.floating("dtype", dtype)
    if find_spec("diffusers") is None:
        raise MissingPackageError(f"the model {name!r} is a diffusers network: pip install 'fewstep[diffusers]'.")
    from diffusers import UNet2DModel

    folder = resources.files("fewstep.models") / name.replace("-", "_")
    with resources.as_file(folder) as path:
        with torch.device("meta"):  # draws no random weights from the global generator
            network = UNet2DModel.from_config(UNet2DModel.load_config(path))
        weights = load_file(path / "diffusion_pytorch_model.safetensors")
    network.load_state_dict({key: value.to(kind) for key, value in weights.items()}, assign=True)
    network = network.to(place).eval().requires_grad_(False)
    process, shape = VPDiscrete.from_betas(), (1, 32, 32)
    denoiser = Denoiser(network, process, "v", shape=shape, num_classes=10, default_cond=NULL_CLASS)
    return Model(denoiser, null_cond=NULL_CLASS)

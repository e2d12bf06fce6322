"""The fingerprint of a model, and the warning when a plan was fitted to another one."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fewstep.denoiser import DataPredictor
from fewstep.unwrap import innermost_denoiser, layers, network_of

if TYPE_CHECKING:
    from fewstep.models.model import Model
    from fewstep.recipe import Recipe

__all__ = [
    "described",
    "fingerprint",
    "model_fingerprint",
    "network_fingerprint",
    "warn_if_other_fingerprint",
    "warn_if_other_model",
    "weights_hash",
]


def fingerprint(denoiser: DataPredictor | Callable[..., Tensor]) -> str:
    """Return a SHA-256 of the network's weights, its configuration and what it predicts; "" without any weights.

    Guidance and thresholding around the network are not part of it. The same weights in another precision are another
    model.
    """
    if not isinstance(denoiser, DataPredictor):
        return ""
    inner = innermost_denoiser(denoiser)
    return network_fingerprint(getattr(inner, "network", None), getattr(inner, "prediction", ""))


def model_fingerprint(model: Model) -> str:
    """Return the ``fingerprint`` of the denoiser with the weights of the model's other parts; "" without any."""
    inner = innermost_denoiser(model.denoiser)
    return network_fingerprint(getattr(inner, "network", inner), getattr(inner, "prediction", ""), *model.parts)


def network_fingerprint(network: object, prediction: str, *parts: nn.Module) -> str:
    """Return the fingerprint of a network that predicts ``prediction`` ("v", "epsilon", …); "" without any weights.

    ``torch.compile`` and parallel wrappers around the network are not part of it. ``parts`` are networks whose weights
    count too.
    """
    network = _unwrapped(network)
    weights = weights_hash(network, *parts)
    if not weights:
        return ""
    config = getattr(network, "config", None)
    settings = {key: value for key, value in config.items() if key[:1] != "_"} if isinstance(config, Mapping) else {}
    text = json.dumps([weights, prediction, settings], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def described(denoiser: DataPredictor | Callable[..., Tensor]) -> dict[str, Any]:
    """Return what a recipe says of the model: class, fingerprint, prediction, guidance scale (JSON-able)."""
    inner = innermost_denoiser(denoiser)
    network, scale = getattr(inner, "network", inner), guidance_scale(denoiser)
    return {
        "network": type(network).__name__,
        "fingerprint": fingerprint(denoiser),
        "prediction": getattr(inner, "prediction", "x0"),
        **({"guidance": scale} if isinstance(scale, str) else {"guidance_scale": scale}),
    }


def guidance_scale(denoiser: object) -> float | str:
    """Return the scale of guidance around the network, with its settings if there are any; 1 without guidance."""
    spelled = (getattr(layer, "spelling", getattr(layer, "guidance_scale", None)) for layer in layers(denoiser))
    found = [one for one in spelled if one is not None]
    return " of ".join(map(str, found)) if len(found) > 1 else found[0] if found else 1.0


def warn_if_other_model(recipe: Recipe, denoiser: DataPredictor | Callable[..., Tensor]) -> None:
    """Warn if ``recipe`` was fitted to another network, or at another guidance scale, than ``denoiser``."""
    warn_if_other_fingerprint(recipe, fingerprint(denoiser))
    scale, wanted = recipe.model.get("guidance", recipe.model.get("guidance_scale")), guidance_scale(denoiser)
    if scale is not None and scale != wanted:
        scale, wanted = (one if isinstance(one, str) else f"{one:g}" for one in (scale, wanted))
        warnings.warn(
            f"this plan was calibrated at guidance_scale={scale}, and runs at {wanted}: "
            "calibrate at the scale that is used.",
            UserWarning,
            stacklevel=2,
        )


def warn_if_other_fingerprint(recipe: Recipe, here: str) -> None:
    """Warn if ``recipe`` was fitted to a network of another fingerprint than ``here``; "" is unknown."""
    fitted_to = recipe.model.get("fingerprint", "")
    if fitted_to and here and fitted_to != here:
        warnings.warn(
            "this plan was calibrated on another model (the fingerprint of weights, their precision and configuration "
            "differs): it may be worse than the solver's rows; calibrate anew with fs.calibrate or fewstep "
            "calibrate.",
            UserWarning,
            stacklevel=3,
        )


def _unwrapped(network: object) -> object:
    """Return the network inside of compilation, parallel wrappers and preconditioning."""
    plain = network_of(network)
    inner = getattr(plain, "network", None)
    return _unwrapped(inner) if isinstance(inner, nn.Module) else plain


def weights_hash(*networks: object) -> str:
    """Return the SHA-256 of the weights of those that are networks, with names, shapes and types.

    It is "" without any, and where some are not in memory (on the meta device, as under sequential offloading).
    """
    digest, found = hashlib.sha256(), False
    for network in networks:
        if isinstance(network, nn.Module):
            found = True
            for name, value in sorted(network.state_dict().items()):
                if value.is_meta:
                    return ""
                digest.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
                digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest() if found else ""

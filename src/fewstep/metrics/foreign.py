"""Feature networks of others, from local files; each package is imported only where it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fewstep.errors import InputError, MissingPackageError, reason_of
from fewstep.metrics.pixels import rounded

__all__ = ["dinov2", "inception", "torchscript"]

SAFE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""Nothing is fetched, and no code of a folder is run, nor is anybody asked whether it may be."""
Network = Callable[[Tensor], Tensor]
Loaded = tuple[Network, torch.device, Network | None]
"""The features of images, where they are computed, and the logits of features if there are classes."""


def torchscript(path: Path, device: torch.device) -> Loaded:
    """Return a TorchScript module: float32 [n, C, H, W] in [−1, 1] to [n, d], with its exported method ``head``."""
    try:
        torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{str(path)!r} is not a TorchScript file: write it with torch.jit.save.") from error
    module = torch.jit.load(str(path), map_location=device).eval()  # .to(device) would leave traced constants behind.
    head = getattr(module, "head", None)
    return module, device, head if callable(head) else None


def dinov2(path: Path, device: torch.device) -> Loaded:
    """Return DINOv2's class token from a folder that transformers saved, at the size and scale of its images."""
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise MissingPackageError("dinov2 needs transformers: pip install 'fewstep[diffusers]'.") from error
    try:
        kind = AutoConfig.from_pretrained(path, **SAFE).model_type
        if not kind.startswith("dinov2"):
            raise InputError(f"{str(path)!r} holds a {kind!r} model, not DINOv2.")
        model: Any
        with _silent():
            model, loaded = AutoModel.from_pretrained(path, **SAFE, use_safetensors=True, output_loading_info=True)
    except (InputError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # Whatever the library makes of a damaged folder.
        raise InputError(f"{str(path)!r} holds no model of transformers: {reason_of(error)}") from error
    absent = sorted(map(str, [*loaded["missing_keys"], *loaded["mismatched_keys"]]))
    if absent:
        raise InputError(f"{str(path)!r} has no weights for {', '.join(absent[:3])}, …: save the model again.")
    model = model.eval().requires_grad_(False).to(device)
    scale = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], device=device)
    mean, deviation = scale.view(2, 3, 1, 1)
    size = 224 if model.config.image_size >= 224 else model.config.image_size

    def token(images: Tensor) -> Tensor:
        pixels = (_rgb(images).clamp(-1.0, 1.0) + 1.0) / 2.0
        pixels = interpolate(pixels, (size, size), mode="bicubic", antialias=True).clamp(0.0, 1.0)
        return model((pixels - mean) / deviation).last_hidden_state[:, 0]

    return token, device, None


def inception(path: Path, device: torch.device) -> Loaded:
    """Return torch-fidelity's Inception, 2048 features: pytorch-fid's weights fit, and it resizes as the FID does.

    Its logits are those of the inception score, without the last layer's bias.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise MissingPackageError(
            "inception needs torch-fidelity, which needs the torchvision that fits your torch: "
            "pip install torchvision torch-fidelity."
        ) from error
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        checked = BytesIO()  # torch-fidelity unpickles what it is given, code and all
        torch.save(weights, checked)
        checked.seek(0)
        model: Any = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=checked
        )
    except (OSError, EOFError, RuntimeError, TypeError, UnpicklingError) as error:
        raise InputError(
            f"{str(path)!r} holds no weights of the FID's Inception: give torch-fidelity's "
            "weights-inception-2015-12-05-6726825d.pth or pytorch-fid's pt_inception-2015-12-05-6726825d.pth."
        ) from error

    model = model.to(device)

    def pooled(images: Tensor) -> Tensor:
        return model(rounded(_rgb(images)))[0]

    weight = weights.get("fc.weight")
    if weight is None:
        return pooled, device, None
    weight = weight.to(device, torch.float32)
    return pooled, device, lambda features: features @ weight.T


@contextmanager
def _silent() -> Iterator[None]:
    """Keep transformers' bars and tables off the terminal: what is wrong is said in one sentence."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _rgb(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images

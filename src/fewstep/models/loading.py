"""Research models: Python entries ``module:function``, and EDM's network pickles."""

from __future__ import annotations

import importlib
import inspect
import math
import os
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.denoiser import DataPredictor, Denoiser
from fewstep.errors import InputError, reason_of
from fewstep.metrics.pixels import rounded
from fewstep.models.model import Model
from fewstep.processes import EDM
from fewstep.unwrap import layers

__all__ = ["load_edm_pickle", "load_entry"]


def load_entry(text: str) -> Model:
    """Return what ``function()`` of ``module`` returns, for "module:function": an ``fs.Denoiser`` that knows its shape.

    The module may lie in the working directory.

    Raises:
        InputError: if the module or the function is missing, or the function returns something else. What goes wrong
            inside of the function is raised as it is.
    """
    module, _, function = text.partition(":")
    if not module or module[0] == "." or "/" in module:
        raise InputError(f"--model is {text!r}: write module:function, as mine.models:load for mine/models.py.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"--model is {text!r}: {error}; write module:function, importable from here.") from error
    if not callable(make):
        raise InputError(f"--model is {text!r}, which is {type(make).__name__}: name a function without arguments.")
    try:
        inspect.signature(make).bind()
    except (TypeError, ValueError) as error:
        raise InputError(f"--model is {text!r}, which cannot be called without arguments: {error}.") from error
    try:
        made = make()
    except SystemExit as error:
        raise InputError(f"--model is {text!r}, which ends the program: name a function that makes a model.") from error
    model = Model(made) if isinstance(made, DataPredictor) else made
    if not isinstance(model, Model) or model.denoiser.shape is None:
        raise InputError(
            f"--model is {text!r}, which returned {type(made).__name__}: return an "
            "fs.Denoiser(network, process, prediction, shape=...)."
        )
    _in_evaluation_mode(model, text)
    return model


def _in_evaluation_mode(model: Model, text: str) -> None:
    """Switch training off in every network of a model, and say so where it was on."""
    networks = [layer for layer in layers(model.denoiser) if isinstance(layer, nn.Module)][:1]
    changed = [network for network in (*networks, *model.parts) if any(part.training for part in network.modules())]
    for network in changed:
        network.eval()
    if changed:
        kinds = ", ".join(dict.fromkeys(type(network).__name__ for network in changed))
        warnings.warn(
            f"{text} returned a network in training mode ({kinds}), in which dropout and batch statistics change the "
            "samples: it is used in evaluation mode; write network.eval() there.",
            UserWarning,
            stacklevel=3,
        )


def load_edm_pickle(path: Path, *, device: str = "cpu") -> Model:
    """Return the network of an EDM pickle (its "ema"), which maps (x, σ, one-hot class) to x0.

    The pickle of an EDM2 network on latents holds their encoder too, by which samples become images and back.

    Loading a pickle runs the code in it. EDM's pickles need the ``torch_utils`` and ``dnnlib`` of its repository on
    the Python path. Source: Karras et al. (arXiv 2206.00364, 2312.02696), github.com/NVlabs/edm and edm2.

    Raises:
        InputError: if the file is missing or holds no such network.
    """
    try:
        with path.open("rb") as file:
            held = pickle.load(file)
    except torch.cuda.OutOfMemoryError:
        raise
    except ImportError as error:
        raise InputError(f"{str(path)!r} needs {error.name!r}: put EDM's repository on PYTHONPATH.") from error
    except (OSError, EOFError, pickle.UnpicklingError, AttributeError, LookupError, ValueError, RuntimeError) as error:
        raise InputError(f"{str(path)!r} cannot be read as a pickle: {error}.") from error
    network: Any = held.get("ema") if isinstance(held, dict) else held
    if not isinstance(network, nn.Module) or not hasattr(network, "img_resolution"):
        raise InputError(f"{str(path)!r} holds {type(network).__name__}: an EDM network with img_resolution is needed.")
    network = network.to(device).eval().requires_grad_(False)
    classes = int(getattr(network, "label_dim", 0))
    coder = held.get("encoder") if isinstance(held, dict) else None
    pixels = network.img_channels in (1, 3) and type(coder).__name__ in ("NoneType", "StandardRGBEncoder")
    decode, encode = (None, None) if coder is None or pixels else _coder(coder, path, device)
    low, high = max(0.002, getattr(network, "sigma_min", 0.0)), min(80.0, getattr(network, "sigma_max", math.inf))
    return Model(
        Denoiser(
            _OneHot(network, classes),
            EDM(low, high),
            "x0",
            shape=(network.img_channels, network.img_resolution, network.img_resolution),
            num_classes=classes or None,
        ),
        decode,
        encode=encode,
    )


def _coder(coder: Any, path: Path, device: str) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Return the way from latents to images and back by an encoder of EDM2, whose images are uint8 [n, C, H, W].

    Its latents are raw ones, the mean and the deviation of each, drawn, scaled and shifted; here their mean is taken.
    """

    @torch.no_grad()
    def decode(latents: Tensor) -> Tensor:
        pixels = _coded(lambda: coder.decode(latents.to(device)))
        return pixels.float().div(127.5).sub(1.0)

    @torch.no_grad()
    def encode(images: Tensor) -> Tensor:
        raw = _coded(lambda: coder.encode_pixels(rounded(images).to(device)))
        mean, deviation = raw.chunk(2, dim=1)
        with torch.random.fork_rng():
            return coder.encode_latents(torch.cat([mean, torch.zeros_like(deviation)], dim=1))

    def _coded(call: Callable[[], Any]) -> Tensor:
        try:
            made = call()
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # Code of the pickle, which may load or download an autoencoder.
            raise InputError(f"the {type(coder).__name__} of {str(path)!r} fails: {reason_of(error)}") from error
        if not isinstance(made, Tensor) or made.ndim != 4:
            raise InputError(f"the {type(coder).__name__} of {str(path)!r} returned no images [n, C, H, W].")
        return made

    return decode, encode


class _OneHot(nn.Module):
    """EDM's preconditioned network with class numbers instead of one-hot rows."""

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return x0."""
        if not self.classes or labels is None:
            return self.network(x, sigma)
        return self.network(x, sigma, torch.nn.functional.one_hot(labels, self.classes).to(x.dtype))

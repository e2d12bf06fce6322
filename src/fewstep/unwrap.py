"""The layers of a wrapped network: guidance, denoiser, ``torch.compile``, parallel wrappers, the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import nn

__all__ = ["innermost_denoiser", "is_compiled", "layers", "module_device", "network_of", "offloads"]

PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
ExecutionDevice = Callable[[nn.Module], torch.device | str | int | None]
_offloading: list[ExecutionDevice] = []


def layers(outer: Any) -> Iterator[Any]:
    """Yield ``outer`` and the layers inside it, from the outside in.

    Guidance and thresholding have an ``inner`` denoiser, a denoiser its ``network``, ``torch.compile`` and parallel
    wrappers a module. An object with none of these is the last layer.
    """
    while outer is not None:
        yield outer
        outer = _inside(outer)


def innermost_denoiser(denoiser: Any) -> Any:
    """Return the denoiser inside guidance and thresholding; an object that is no denoiser is returned as it is."""
    last = denoiser
    for layer in layers(denoiser):
        last = layer if _is_denoiser(layer) else last
    return last


def network_of(outer: Any) -> Any:
    """Return the last layer: the bare network, or the denoiser or function if it hides its network."""
    last = outer
    for layer in layers(outer):
        last = layer
    return last


def is_compiled(outer: Any) -> bool:
    """Whether the network in ``outer``, or a part of it, is compiled."""
    module = next((layer for layer in layers(outer) if isinstance(layer, nn.Module)), None)
    parts = () if module is None else module.modules()
    return any("_orig_mod" in p._modules or getattr(p, "_compiled_call_impl", None) is not None for p in parts)


def offloads(execution_device: ExecutionDevice) -> ExecutionDevice:
    """Register a function that returns where a module is brought for its calls; None for one that stays in place."""
    _offloading.append(execution_device)
    return execution_device


def module_device(network: nn.Module) -> torch.device | None:
    """Return where a network computes: where offloading brings it, else where its first parameter or buffer is."""
    for part in network.modules():
        for execution_device in _offloading:
            place = execution_device(part)
            if place is not None:
                return torch.device(place)
    tensor = next(chain(network.parameters(), network.buffers()), None)
    return None if tensor is None else tensor.device


def _is_denoiser(layer: Any) -> bool:
    return hasattr(layer, "process")


def _inside(layer: Any) -> Any:
    if isinstance(layer, nn.Module):
        if layer._modules.get("_orig_mod") is not None:
            return layer._modules["_orig_mod"]
        if isinstance(layer, PARALLEL):
            return layer.module
        if not _is_denoiser(layer):
            return None
    inner = getattr(layer, "inner", None)
    return getattr(layer, "network", None) if inner is None else inner

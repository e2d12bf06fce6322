"""Transformers whose later blocks take an earlier block's tokens as an argument ``skip``."""

from __future__ import annotations

from torch import nn

from fewstep.skip.site import Site, Skip, parameters_of

__all__ = ["skip_argument"]


def skip_argument(network: nn.Module) -> list[Skip]:
    """HunyuanDiT, U-ViT and UniDiffuser: every module with a ``skip_linear`` and an argument ``skip``, in order.

    HunyuanDiT normalises [hidden, skip] together, which undoes a part of ρ.
    """
    if isinstance(network, (nn.ModuleList, nn.ModuleDict, nn.Sequential)):
        return []
    return [
        Skip(name, 0, module.skip_linear.in_features // 2, None, Site(name, "skip", dim=-1))
        for name, module in network.named_modules()
        if isinstance(getattr(module, "skip_linear", None), nn.Linear) and "skip" in parameters_of(module)
    ]

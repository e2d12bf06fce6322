"""The UNets of research code, recognised by class name and attributes, so that pickled copies are found too.

All of them concatenate [hidden, skip] before they call the module, so that the skip is the last channels of
its first argument: as many as the module takes more than the one before gave.
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from fewstep.skip.site import Site, Skip

__all__ = ["edm", "guided_diffusion", "latent_diffusion"]


def edm(network: nn.Module) -> list[Skip]:
    """EDM's SongUNet (DDPM++, NCSN++) and DhariwalUNet, and EDM2's UNet: the blocks of ``dec`` without "aux"."""
    blocks: Any = getattr(network, "dec", None)
    if not _is_a(network, "SongUNet", "DhariwalUNet", "UNet") or not isinstance(blocks, nn.ModuleDict):
        return []
    skips: list[Skip] = []
    hidden = None
    block: Any
    for name, block in blocks.items():
        if "aux" in name:
            continue
        taken = block.in_channels if hasattr(block, "in_channels") else block.conv_res0.weight.shape[1]
        if hidden is not None and taken != hidden:
            size = re.match(r"(\d+)x(\d+)_", name)
            resolution = (int(size[1]), int(size[2])) if size else None
            skips.append(_concatenated(f"dec.{name}", taken - hidden, resolution))
        hidden = block.out_channels
    return skips


def guided_diffusion(network: nn.Module) -> list[Skip]:
    """guided-diffusion's and latent-diffusion's ``UNetModel``: the first layers of ``output_blocks``."""
    blocks: Any = getattr(network, "output_blocks", None)
    if not _is_a(network, "UNetModel") or not isinstance(blocks, nn.ModuleList):
        return []
    # Latent-diffusion configurations give any image_size, for their networks do not use it.
    size = getattr(network, "image_size", None) if not hasattr(network, "predict_codebook_ids") else None
    level = sum(_goes_up(block) for block in blocks)
    middle: Any = network.middle_block
    hidden = middle[0].out_channels
    skips: list[Skip] = []
    block: Any
    for i, block in enumerate(blocks):
        resolution = (size >> level, size >> level) if isinstance(size, int) else None
        skips.append(_concatenated(f"output_blocks.{i}.0", block[0].channels - hidden, resolution))
        hidden = block[0].out_channels
        level -= _goes_up(block)
    return skips


def latent_diffusion(network: nn.Module) -> list[Skip]:
    """The UNet of DDPM's PyTorch ports and latent-diffusion's model.py: ``up[i].block[j]``, from the last i to 0."""
    up: Any = getattr(network, "up", None)
    middle: Any = getattr(network, "mid", None)
    if not isinstance(up, nn.ModuleList) or not isinstance(getattr(network, "down", None), nn.ModuleList):
        return []
    if not hasattr(middle, "block_2") or not all(hasattr(level, "block") for level in up):
        return []
    size = getattr(network, "resolution", None)
    hidden = middle.block_2.out_channels
    skips: list[Skip] = []
    level: Any
    for i, level in reversed(list(enumerate(up))):
        for j, block in enumerate(level.block):
            resolution = (size >> i, size >> i) if isinstance(size, int) else None
            skips.append(_concatenated(f"up.{i}.block.{j}", block.in_channels - hidden, resolution))
            hidden = block.out_channels
    return skips


def _is_a(network: nn.Module, *names: str) -> bool:
    return any(base.__name__ in names for base in type(network).__mro__)


def _goes_up(block: Any) -> bool:
    return any(type(layer).__name__ == "Upsample" or getattr(layer, "updown", False) for layer in list(block)[1:])


def _concatenated(name: str, channels: int, resolution: tuple[int, ...] | None) -> Skip:
    return Skip(name, 0, channels, resolution, Site(name, 0, channels=channels))

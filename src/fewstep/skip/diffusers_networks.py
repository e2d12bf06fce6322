"""The UNets of diffusers, recognised by the arguments of their up blocks."""

from __future__ import annotations

from typing import Any

from torch import nn

from fewstep.skip.site import Site, Skip, parameters_of

__all__ = ["kandinsky3", "residual_tuples", "stable_cascade"]

RESIDUALS = "res_hidden_states_tuple"


def residual_tuples(network: nn.Module) -> list[Skip]:
    """Every UNet whose ``up_blocks`` take ``res_hidden_states_tuple``, which they use up from its end.

    These are UNet1DModel, UNet2DModel, UNet2DConditionModel, UNet3DConditionModel, UNetMotionModel,
    UNetSpatioTemporalConditionModel, I2VGenXLUNet and what derives from them, with all their blocks.
    """
    blocks: Any = getattr(network, "up_blocks", None)
    if not isinstance(blocks, nn.ModuleList):
        return []
    size = _sample_size(network)
    level = sum(_goes_up(block) for block in blocks)
    hidden = _middle_channels(network)
    skips: list[Skip] = []
    block: Any
    for i, block in enumerate(blocks):
        if RESIDUALS not in parameters_of(block):
            continue
        resolution = tuple(side >> level for side in size) if size is not None else None
        for j, resnet in enumerate(list(block.resnets)[: 1 if _uses_last_only(block) else None]):
            channels = _taken(resnet) - hidden if hidden is not None else None
            if channels != 0:
                site = Site(f"up_blocks.{i}", RESIDUALS, entry=-1 - j)
                skips.append(Skip(f"up_blocks.{i}.resnets.{j}", 0, channels, resolution, site))
            hidden = _given(resnet)
        hidden = _given(block.resnets[-1])
        level -= _goes_up(block)
    return skips


def kandinsky3(network: nn.Module) -> list[Skip]:
    """Kandinsky 3's UNet, which concatenates before all up blocks but the first."""
    if type(network).__name__ != "Kandinsky3UNet":
        return []
    blocks: Any = network.up_blocks
    skips = []
    for i in range(1, len(blocks)):
        channels = (
            blocks[i].resnets_in[0].resnet_blocks[0].projection.in_channels
            - blocks[i - 1].resnets_out[-1].resnet_blocks[-1].projection.out_channels
        )
        skips.append(Skip(f"up_blocks.{i}", 0, channels, None, Site(f"up_blocks.{i}", 0, channels=channels)))
    return skips


def stable_cascade(network: nn.Module) -> list[Skip]:
    """Stable Cascade's UNet: the blocks of ``up_blocks`` that are wider at their entry take ``x_skip``."""
    levels: Any = getattr(network, "up_blocks", None)
    if not isinstance(levels, nn.ModuleList) or not all(isinstance(level, nn.ModuleList) for level in levels):
        return []
    skips = []
    block: Any
    for name, block in levels.named_modules(prefix="up_blocks"):
        if "x_skip" in parameters_of(block) and hasattr(block, "channelwise"):
            channels = block.channelwise[0].in_features - block.depthwise.in_channels
            if channels:
                skips.append(Skip(name, 0, channels, None, Site(name, "x_skip")))
    return skips


def _uses_last_only(block: nn.Module) -> bool:
    """Return whether the block concatenates once, before its first resnet: K-blocks and one-dimensional ones."""
    name = type(block).__name__
    return name.startswith("K") or "1D" in name


def _sample_size(network: nn.Module) -> tuple[int, ...] | None:
    size = getattr(getattr(network, "config", None), "sample_size", None)
    if isinstance(size, int):
        return (size,) if type(network).__name__ == "UNet1DModel" else (size, size)
    return tuple(size) if isinstance(size, (tuple, list)) else None


def _goes_up(block: nn.Module) -> bool:
    return any(getattr(block, name, None) is not None for name in ("upsamplers", "resnet_up", "up", "upsample"))


def _middle_channels(network: nn.Module) -> int | None:
    """Return the number of channels that the first up block is given, where it can be told."""
    middle: Any = getattr(network, "mid_block", None)
    down: Any = network.down_blocks
    resnets = getattr(down[-1] if middle is None else middle, "resnets", None)
    return _given(resnets[-1]) if resnets is not None and len(resnets) else None


def _taken(resnet: nn.Module) -> int:
    """Return the number of channels that a resnet takes: what it, or the first of its parts that says so, says."""
    parts: list[Any] = [part for part in resnet.modules() if hasattr(part, "in_channels")]
    return int(parts[0].in_channels)


def _given(resnet: nn.Module) -> int:
    """Return the number of channels that a resnet gives: those of its second convolution."""
    parts = {
        name.split(".")[-1]: part.out_channels for name, part in resnet.named_modules() if hasattr(part, "out_channels")
    }
    return int(next(parts[name] for name in ("conv2", "conv_2", *reversed(parts)) if name in parts))

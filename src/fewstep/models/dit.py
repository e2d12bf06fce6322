"""DiT's published checkpoints in diffusers' transformer, and the autoencoder of their latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.denoiser import Denoiser
from fewstep.errors import InputError, MissingPackageError, reason_of
from fewstep.models.checkpoints import STRICT, filled, read_weights
from fewstep.models.model import Model
from fewstep.models.pipelines import coder_of
from fewstep.processes import VPDiscrete

__all__ = ["DiTSettings", "load_autoencoder", "load_dit", "renamed"]

NAMES = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
    "adaLN_modulation.1": "norm1.linear",
}
"""diffusers' names of layers, by DiT's."""
SHARED = {
    "t_embedder.mlp.0": "timestep_embedder.linear_1",
    "t_embedder.mlp.2": "timestep_embedder.linear_2",
    "y_embedder.embedding_table": "class_embedder.embedding_table",
}
"""Layers of the condition, of which diffusers has one in each block."""
PLACES = "pos_embed"


@dataclass(frozen=True)
class DiTSettings:
    """The settings of a network, which its checkpoint does not hold.

    Attributes:
        size: of a latent, along a side.
        depth: the number of blocks.
        heads: of attention.
        head_channels: features of a head.
        patch: latents along the side of a patch.
        channels: of a latent.
        classes: the number of classes; the next one is the null class.
    """

    __pydantic_config__ = STRICT

    size: int
    depth: int
    heads: int
    head_channels: int
    patch: int = 2
    channels: int = 4
    classes: int = 1000


def renamed(weights: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Return the weights of DiT's code by the names of diffusers' ``DiTTransformer2DModel``, without the places."""
    made: dict[str, Tensor] = {}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        if name == PLACES:
            continue
        if layer in SHARED:
            made |= {f"transformer_blocks.{i}.norm1.emb.{SHARED[layer]}.{kind}": value for i in range(depth)}
            continue
        block = ""
        if layer.startswith("blocks."):
            _, index, layer = layer.split(".", 2)
            block = f"transformer_blocks.{index}."
        if layer == "attn.qkv":
            parts = zip(("to_q", "to_k", "to_v"), value.chunk(3), strict=True)
            made |= {f"{block}attn1.{part}.{kind}": one for part, one in parts}
        else:
            made[f"{block}{NAMES.get(layer, layer)}.{kind}"] = value
    return made


def load_dit(path: Path, settings: DiTSettings, autoencoder: Path, device: str = "cpu") -> Model:
    """Return a network of DiT with the weights of its checkpoint; it predicts epsilon and a variance, for latents.

    Source: Peebles & Xie (arXiv 2212.09748), github.com/facebookresearch/DiT. Guidance is over all channels, where its
    code guides the first three of four.

    Args:
        path: the ``.pt`` file.
        settings: of the network.
        autoencoder: the folder of the autoencoder (see ``load_autoencoder``).
        device: where both live.

    Raises:
        InputError: if a file cannot be read, or its weights are of other settings.
        MissingPackageError: if diffusers is not installed.
    """
    try:
        from diffusers import DiTTransformer2DModel
    except ImportError as error:
        raise MissingPackageError("DiT is a network of diffusers: pip install 'fewstep[diffusers]'.") from error
    weights = read_weights(path, "ema")

    def make() -> Any:
        return DiTTransformer2DModel(
            num_attention_heads=settings.heads,
            attention_head_dim=settings.head_channels,
            in_channels=settings.channels,
            out_channels=2 * settings.channels,
            num_layers=settings.depth,
            sample_size=settings.size,
            patch_size=settings.patch,
            num_embeds_ada_norm=settings.classes,
        )

    network = filled(make, renamed(weights, settings.depth), path, device, empty=False)
    if PLACES in weights:
        network.pos_embed.pos_embed = weights[PLACES].float().to(device)
    for block in network.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0  # DiT's frequencies do not reach 1/10,000; diffusers' do.
    decode, encode, coder = load_autoencoder(autoencoder, device)
    denoiser = Denoiser(
        network,
        VPDiscrete.from_betas(),
        "epsilon",
        shape=(settings.channels, settings.size, settings.size),
        num_classes=settings.classes,
        default_cond=settings.classes,
        learned_variance=True,
    )
    return Model(denoiser, decode, encode=encode, parts=(coder,), null_cond=settings.classes)


def load_autoencoder(folder: Path, device: str) -> tuple[Any, Any, torch.nn.Module]:
    """Return the way from latents to images and back of a diffusers ``AutoencoderKL`` in a folder, and the network.

    Raises:
        InputError: if the folder holds none in safetensors.
    """
    from diffusers import AutoencoderKL

    try:
        coder = AutoencoderKL.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except Exception as error:  # Whatever the library makes of a damaged folder.
        raise InputError(f"the autoencoder {str(folder)!r} cannot be loaded: {reason_of(error)}") from error
    coder = coder.to(device)
    return *coder_of(coder), coder

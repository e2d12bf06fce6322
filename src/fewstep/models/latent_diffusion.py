"""latent-diffusion's class-conditional UNet and its autoencoder, from one checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from fewstep.denoiser import Denoiser
from fewstep.errors import InputError, MissingPackageError
from fewstep.models.checkpoints import STRICT, filled, read_weights
from fewstep.models.guided_diffusion import GROUPS, UNetModel, UNetSettings
from fewstep.models.model import Model
from fewstep.models.pipelines import coder_of
from fewstep.processes import VPDiscrete

__all__ = ["CoderSettings", "LatentDiffusionSettings", "coder_names", "load_latent_diffusion"]

UNET, CODER, TABLE = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.embedding.weight"
UNUSED = ("loss.",)
"""Parts of an autoencoder that are for its training."""


@dataclass(frozen=True)
class CoderSettings:
    """The settings of a vector-quantised autoencoder.

    Attributes:
        width: features of the outermost level.
        multipliers: features of each level, in units of ``width``, outermost first.
        blocks: residual blocks in a level of the encoder; the decoder has one more.
        codes: the number of codes.
    """

    __pydantic_config__ = STRICT

    width: int
    multipliers: Sequence[int]
    blocks: int
    codes: int


@dataclass(frozen=True)
class LatentDiffusionSettings:
    """The settings of a model, which its checkpoint does not hold.

    Attributes:
        unet: of the network; ``learned_variance``, ``scale_shift`` and ``residual_resampling`` are False in all that
            are published, and ``classes`` None, for a class is a context.
        coder: of the autoencoder.
        classes: the number of classes; the next one is the null class.
        beta_start: the first β of the training steps, which are linear in √β.
        beta_end: the last β.
    """

    __pydantic_config__ = STRICT

    unet: UNetSettings
    coder: CoderSettings
    classes: int = 1000
    beta_start: float = 0.0015
    beta_end: float = 0.0195


class SpatialTransformer(nn.Module):
    """Self-attention over the pixels, attention to a context and a feed-forward network, in one residual block."""

    takes_context = True

    def __init__(self, channels: int, *, head_channels: int | None, context: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, head_channels or channels, context)])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return the features for a context [n, m, d]."""
        h = self.proj_in(self.norm(x))
        flat = h.flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            flat = block(flat, context)
        return x + self.proj_out(flat.transpose(1, 2).view_as(h))


class TransformerBlock(nn.Module):
    """The three residual layers of a transformer."""

    def __init__(self, width: int, head_channels: int, context: int) -> None:
        super().__init__()
        self.attn1 = CrossAttention(width, width, head_channels)
        self.ff = FeedForward(width)
        self.attn2 = CrossAttention(width, context, head_channels)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return the features [n, pixels, width]."""
        normed = self.norm1(x)
        x = x + self.attn1(normed, normed)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class CrossAttention(nn.Module):
    """Attention of x to a context."""

    def __init__(self, width: int, context: int, head_channels: int) -> None:
        super().__init__()
        self.heads = width // head_channels
        self.to_q, self.to_k, self.to_v = (nn.Linear(given, width, bias=False) for given in (width, context, context))
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return the features [n, pixels, width]."""
        parts = (self.to_q(x), self.to_k(context), self.to_v(context))
        heads = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return self.to_out(scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """A gated layer (GEGLU) and a linear one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # The middle is dropout in training.
        self.net = nn.Sequential(Gated(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        return self.net(x)


class Gated(nn.Module):
    """One half of a linear map, times the GELU of the other."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * out)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        made, gate = self.proj(x).chunk(2, dim=-1)
        return made * gelu(gate)


class ClassConditional(nn.Module):
    """The UNet, whose context is the embedding of a class."""

    def __init__(self, settings: LatentDiffusionSettings, context: int) -> None:
        super().__init__()
        attend = partial(SpatialTransformer, head_channels=settings.unet.head_channels, context=context)
        self.unet = UNetModel(settings.unet, attend)
        self.embedding = nn.Embedding(settings.classes + 1, context)

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """Return ε̂."""
        return self.unet(x, times, context=self.embedding(labels)[:, None])


CODER_NAMES = (
    (r"down\.(\d+)\.block\.", lambda m, _: f"down_blocks.{m[1]}.resnets."),
    (r"down\.(\d+)\.downsample\.", lambda m, _: f"down_blocks.{m[1]}.downsamplers.0."),
    (r"up\.(\d+)\.block\.", lambda m, levels: f"up_blocks.{levels - 1 - int(m[1])}.resnets."),
    (r"up\.(\d+)\.upsample\.", lambda m, levels: f"up_blocks.{levels - 1 - int(m[1])}.upsamplers.0."),
    (r"mid\.block_([12])\.", lambda m, _: f"mid_block.resnets.{int(m[1]) - 1}."),
    (r"mid\.attn_1\.norm\.", lambda m, _: "mid_block.attentions.0.group_norm."),
    (r"mid\.attn_1\.([qkv])\.", lambda m, _: f"mid_block.attentions.0.to_{m[1]}."),
    (r"mid\.attn_1\.proj_out\.", lambda m, _: "mid_block.attentions.0.to_out.0."),
    (r"(?<=coder\.)norm_out\.", lambda m, _: "conv_norm_out."),
    (r"nin_shortcut\.", lambda m, _: "conv_shortcut."),
)
"""diffusers' names of an autoencoder's layers, by latent-diffusion's."""


def coder_names(weights: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Return the weights of latent-diffusion's autoencoder of so many levels by the names of diffusers'."""
    made = {}
    for name, value in weights.items():
        if name.startswith(UNUSED):
            continue
        for pattern, new in CODER_NAMES:
            name = re.sub(pattern, lambda match, new=new: new(match, levels), name)  # type: ignore[misc]
        made[name] = value.flatten(1) if ".attentions." in name and value.ndim == 4 else value
    return made


def load_latent_diffusion(path: Path, settings: LatentDiffusionSettings, device: str = "cpu") -> Model:
    """Return a class-conditional model of latent-diffusion with its vector-quantised autoencoder; it predicts epsilon.

    Source: Rombach et al. (arXiv 2112.10752), github.com/CompVis/latent-diffusion, "cin256-v2".

    Args:
        path: the checkpoint, of Lightning or in safetensors, with the UNet, the classes and the autoencoder.
        settings: of all three.
        device: where they live.

    Raises:
        InputError: if the file cannot be read, or its weights are of other settings.
        MissingPackageError: if diffusers, whose ``VQModel`` the autoencoder is, is not installed.
    """
    try:
        from diffusers import VQModel
    except ImportError as error:
        raise MissingPackageError(
            "the autoencoder is a network of diffusers: pip install 'fewstep[diffusers]'."
        ) from error
    weights = read_weights(path, "state_dict")
    table = weights.get(TABLE)
    if table is None or table.ndim != 2:
        raise InputError(f"{str(path)!r} has no table of classes ({TABLE}): give a class-conditional checkpoint.")
    of_unet = {f"unet.{name}": value for name, value in _within(weights, UNET).items()} | {"embedding.weight": table}
    network = filled(lambda: ClassConditional(settings, table.shape[1]), of_unet, path, device)
    channels, coder = settings.unet.channels, settings.coder

    def make() -> Any:
        return VQModel(
            block_out_channels=tuple(coder.width * multiplier for multiplier in coder.multipliers),
            layers_per_block=coder.blocks,
            latent_channels=channels,
            num_vq_embeddings=coder.codes,
            vq_embed_dim=channels,
            down_block_types=("DownEncoderBlock2D",) * len(coder.multipliers),
            up_block_types=("UpDecoderBlock2D",) * len(coder.multipliers),
            scaling_factor=1.0,
        )

    autoencoder = filled(make, coder_names(_within(weights, CODER), len(coder.multipliers)), path, device, empty=False)
    decode, encode = coder_of(autoencoder)
    denoiser = Denoiser(
        network,
        VPDiscrete.from_betas(settings.beta_start, settings.beta_end, schedule="scaled_linear"),
        "epsilon",
        shape=(channels, settings.unet.size, settings.unet.size),
        num_classes=settings.classes,
        default_cond=settings.classes,
    )
    return Model(denoiser, decode, encode=encode, parts=(autoencoder,), null_cond=settings.classes)


def _within(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}

"""Small networks of the classes of published checkpoints, with random weights that leave no part without effect."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from unittest import mock

import torch
from diffusers import AutoencoderKL, VQModel
from torch import nn

from fewstep.models.dit import DiTSettings
from fewstep.models.guided_diffusion import UNetModel, UNetSettings
from fewstep.models.latent_diffusion import ClassConditional, CoderSettings, LatentDiffusionSettings
from fewstep.models.score_sde import DDPMPlusPlus, DDPMPlusPlusSettings

ADM = UNetSettings(16, 3, 32, (1, 2), 1, (8,), head_channels=16, classes=10)
LATENT_DIFFUSION = LatentDiffusionSettings(
    UNetSettings(
        8, 3, 32, (1, 2), 1, (4, 8), head_channels=None, learned_variance=False, scale_shift=False,
        residual_resampling=False,
    ),
    CoderSettings(32, (1, 2), 1, 20),
    classes=10,
)  # fmt: skip
DIT = DiTSettings(8, 2, 4, 8, classes=10)
SCORE_SDE = DDPMPlusPlusSettings(16, 3, 32, (1, 2), 1, (8,))


def random_weights(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight random values: zeros of an initialisation would hide a layer from a comparison."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if value.ndim > 1:
                value.normal_(0.0, value[0].numel() ** -0.5, generator=random)
            else:
                value.normal_(1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0, 0.2, generator=random)
    return network.eval().requires_grad_(False)


def adm() -> UNetModel:
    return random_weights(UNetModel(ADM))


def score_sde(path: Path) -> DDPMPlusPlus:
    """Write a checkpoint of ScoreSDE's PyTorch code; return the network with the averaged weights."""
    network = random_weights(DDPMPlusPlus(SCORE_SDE))
    averaged = list(network.parameters())
    names = {"module.sigmas": torch.ones(3)} | {
        f"module.{name}": 0 * value for name, value in network.named_parameters()
    }
    ema = {"decay": 0.9999, "num_updates": 7, "shadow_params": averaged}
    torch.save({"optimizer": {"state": {}, "param_groups": []}, "model": names, "ema": ema, "step": 8}, path)
    return network


def dit(path: Path) -> dict[str, torch.Tensor]:
    """Write a checkpoint of DiT's code, and return its weights; the places are those of its code."""
    width, patch = DIT.heads * DIT.head_channels, DIT.patch
    random = torch.Generator().manual_seed(0)
    layers = {
        "x_embedder.proj": (width, DIT.channels, patch, patch),
        "t_embedder.mlp.0": (width, 256),
        "t_embedder.mlp.2": (width, width),
        "final_layer.linear": (2 * DIT.channels * patch**2, width),
        "final_layer.adaLN_modulation.1": (2 * width, width),
    }
    for i in range(DIT.depth):
        layers |= {
            f"blocks.{i}.attn.qkv": (3 * width, width),
            f"blocks.{i}.attn.proj": (width, width),
            f"blocks.{i}.mlp.fc1": (4 * width, width),
            f"blocks.{i}.mlp.fc2": (width, 4 * width),
            f"blocks.{i}.adaLN_modulation.1": (6 * width, width),
        }
    places = torch.randn(1, (DIT.size // patch) ** 2, width, generator=random)
    table = torch.randn(DIT.classes + 1, width, generator=random)
    weights = {"pos_embed": places, "y_embedder.embedding_table.weight": table}
    for name, shape in layers.items():
        size = torch.Size(shape[1:]).numel()
        weights[f"{name}.weight"] = torch.randn(shape, generator=random) / size**0.5
        weights[f"{name}.bias"] = 0.2 * torch.randn(shape[0], generator=random)
    torch.save(weights, path)
    return weights


def autoencoder(folder: Path) -> AutoencoderKL:
    """Write a small autoencoder in diffusers' format that doubles the resolution."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        coder = AutoencoderKL(
            block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, scaling_factor=0.18215,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        )  # fmt: skip
    coder.eval().requires_grad_(False).save_pretrained(folder)
    return coder


def latent_diffusion(path: Path) -> tuple[ClassConditional, VQModel]:
    """Write a checkpoint of latent-diffusion as Lightning does; return the networks in it."""
    network = random_weights(ClassConditional(LATENT_DIFFUSION, 24))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        coder = VQModel(
            block_out_channels=(32, 64), layers_per_block=1, latent_channels=3, num_vq_embeddings=20, vq_embed_dim=3,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=1.0,
        )  # fmt: skip
    random_weights(coder)
    held = {f"model.diffusion_model.{name}": value for name, value in network.unet.state_dict().items()}
    held["cond_stage_model.embedding.weight"] = network.embedding.weight
    held |= {f"first_stage_model.{name}": value for name, value in theirs(coder.state_dict(), 2).items()}
    held |= {"betas": torch.zeros(3), "first_stage_model.loss.discriminator.weight": torch.zeros(2)}
    callbacks = {Lightning: {"monitor": "val/loss_simple_ema", "best_model_score": torch.tensor(0.1)}}
    modules = {".".join(LIGHTNING.split(".")[:i]): types.ModuleType("") for i in (1, 2, 3)}
    modules[LIGHTNING].ModelCheckpoint = Lightning
    with mock.patch.dict(sys.modules, modules):  # Writing needs the class; where it is read there is none.
        torch.save({"epoch": 3, "state_dict": held, "callbacks": callbacks, "optimizer_states": []}, path)
    return network, coder


def theirs(weights: dict[str, torch.Tensor], levels: int) -> dict[str, torch.Tensor]:
    """Return the weights of diffusers' autoencoder by the names of latent-diffusion's."""
    made = {}
    for name, value in weights.items():
        for pattern, new in (
            (r"down_blocks\.(\d+)\.resnets", r"down.\1.block"),
            (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
            (r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block"),
            (r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample"),
            (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
            (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
            (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
            (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
            (r"conv_norm_out", "norm_out"),
            (r"conv_shortcut", "nin_shortcut"),
        ):
            name = re.sub(pattern, new, name)
        made[name] = value[:, :, None, None] if ".attn_1." in name and value.ndim == 2 else value
    return made


LIGHTNING = "pytorch_lightning.callbacks.model_checkpoint"
Lightning = type("ModelCheckpoint", (), {"__module__": LIGHTNING})
"""What Lightning's checkpoints name besides their weights."""

"""Small networks of the classes of published checkpoints, with random weights that leave no part without effect."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import nn

from fewstep.models.dit import DiTSettings
from fewstep.models.guided_diffusion import UNetModel, UNetSettings
from fewstep.models.score_sde import DDPMPlusPlus, DDPMPlusPlusSettings

ADM = UNetSettings(16, 3, 32, (1, 2), 1, (8,), head_channels=16, classes=10)
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

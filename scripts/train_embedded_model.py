"""The training of the embedded Fashion-MNIST model.

python scripts/train_embedded_model.py --data fashion_mnist.npz --out DIR
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.processes.vp import VPDiscrete

NULL_CLASS = 10
CHECKPOINT_EVERY = 500
NETWORK = {
    "sample_size": 32,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 2,
    "block_out_channels": (24, 48, 96),
    "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
    "attention_head_dim": 32,
    "num_class_embeds": NULL_CLASS + 1,
}


def load_images(path: Path) -> tuple[Tensor, Tensor]:
    """Return training images in [−1, 1] as float32 [n, 1, 32, 32] (padded with −1), and labels int64 [n]."""
    with np.load(path) as data:
        images, labels = data["train_images"], data["train_labels"]
    scaled = torch.from_numpy(images).float().movedim(-1, 1) / 127.5 - 1.0
    return torch.nn.functional.pad(scaled, (2, 2, 2, 2), value=-1.0), torch.from_numpy(labels).long()


def stratified_times(process: VPDiscrete, batch: int, generator: torch.Generator) -> Tensor:
    """Return ``batch`` times whose λ follow N(0.5, 1.7²) in equal strata, within the process's range."""
    quantiles = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    half_logsnr = 0.5 + 1.7 * torch.special.ndtri(quantiles.double())
    return process.time(half_logsnr).clamp(process.t_min, process.t_max)


def velocity_loss(
    network: torch.nn.Module, process: VPDiscrete, x_0: Tensor, labels: Tensor, t: Tensor, noise: Tensor
) -> Tensor:
    """Return the mean squared error of the v-prediction, v = α·ε − σ·x_0 (arXiv 2202.00512)."""
    alpha, sigma = (f(t).float().view(-1, 1, 1, 1) for f in (process.alpha, process.sigma))
    x_t = (alpha * x_0 + sigma * noise).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        velocity = network(x_t, process.network_time(t).float(), class_labels=labels).sample
    return (velocity.float() - (alpha * noise - sigma * x_0)).square().mean()


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the rate at ``step``: a linear rise over 300 steps, then half a cosine down to zero."""
    return peak * min(1.0, (step + 1) / 300) * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def train(data: Path, out: Path, steps: int, batch: int, peak: float, decay: float, seed: int) -> None:
    """Train, keeping a checkpoint in ``out``; a run that was stopped goes on from it, to the same end."""
    from diffusers import UNet2DModel

    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = UNet2DModel(**NETWORK).to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(network.parameters(), peak, betas=(0.9, 0.99), weight_decay=0.01)
    process = VPDiscrete.from_betas()
    images, all_labels = load_images(data)
    parts = {"network": network, "average": average, "optimiser": optimiser}
    start, seconds = _resume(out / "checkpoint.pt", parts)
    began, losses = time.perf_counter() - seconds, []
    for step in range(start, steps):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        chosen = torch.randint(len(images), (batch,), generator=generator)
        dropped = torch.rand(batch, generator=generator) < 0.1
        labels = all_labels[chosen].masked_fill(dropped, NULL_CLASS)
        t = stratified_times(process, batch, generator)
        noise = torch.randn(images[chosen].shape, generator=generator)
        loss = velocity_loss(network, process, images[chosen], labels, t, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            weight = 1.0 - min(decay, (step + 1) / (step + 10))
            torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), weight)
        losses.append(loss.item())
        seconds = time.perf_counter() - began
        if (step + 1) % 100 == 0:
            _log(out / "loss.jsonl", step + 1, losses, seconds)
            losses = []
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
            _save(out / "checkpoint.pt", parts, step + 1, seconds)
            copy.deepcopy(average).half().save_pretrained(out / "unet")


def _resume(checkpoint: Path, parts: dict[str, Any]) -> tuple[int, float]:
    """Load a checkpoint into its parts, if there is one; return the steps done and the seconds they took."""
    if not checkpoint.exists():
        return 0, 0.0
    state = torch.load(checkpoint, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["step"], state["seconds"]


def _save(checkpoint: Path, parts: dict[str, Any], step: int, seconds: float) -> None:
    """Write a checkpoint whole: under another name first."""
    state = {name: part.state_dict() for name, part in parts.items()}
    torch.save({**state, "step": step, "seconds": seconds}, checkpoint.with_suffix(".tmp"))
    os.replace(checkpoint.with_suffix(".tmp"), checkpoint)


def _log(log: Path, step: int, losses: list[float], seconds: float) -> None:
    line = {"step": step, "loss": round(float(np.mean(losses)), 5), "seconds": round(seconds)}
    with log.open("a") as file:
        file.write(json.dumps(line) + "\n")


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="fashion_mnist.npz with train_images, train_labels")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint, loss.jsonl and unet/")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    train(args.data, args.out, args.steps, args.batch, args.learning_rate, args.ema, args.seed)


if __name__ == "__main__":
    main()

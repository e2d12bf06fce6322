"""The training of the embedded Fashion-MNIST model.

python scripts/train_embedded_model.py --data fashion_mnist.npz --out DIR --steps 6000

On a GPU, for twelve minutes: --device cuda --batch 1024 --minutes 12 --compile. Further from the present weights, on
any device: --start src/fewstep/models/fashion_mnist --learning-rate 2e-4. The same command goes on with a run that was
stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from power_ema import TRACKED, PowerAverages, combination
from safetensors.torch import load_file, save_file
from torch import Tensor

from fewstep.processes.vp import VPDiscrete

NULL_CLASS = 10
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
SNAPSHOTS = 16
"""Snapshots of the averages in a run, evenly spread, of which averages of other lengths are made at its end."""
LOG_EVERY = 100


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train; a run ends after ``steps`` or ``minutes``, whichever comes first.

    Attributes:
        steps: updates of the weights.
        minutes: of training, those before an interruption included.
        batch: images a step.
        peak: the highest learning rate.
        warm_up: steps of its linear rise.
        seed: of the weights, images, times and noises.
        device: where all of it runs, the data too.
        precision: "bfloat16" (autocast), "tf32", or "float32".
        compiled: whether the network is compiled.
        channels: of the network's blocks.
        start: a folder of weights to go on from, in place of new ones.
        lengths: of the averages that are written at the end, relative to the run; the first one is "unet".
        checkpoint_every: seconds between checkpoints.
    """

    steps: int | None = None
    minutes: float | None = None
    batch: int = 64
    peak: float = 1e-3
    warm_up: int = 300
    seed: int = 0
    device: str = "cpu"
    precision: str = "bfloat16"
    compiled: bool = False
    channels: tuple[int, ...] = NETWORK["block_out_channels"]
    start: Path | None = None
    lengths: tuple[float, ...] = (0.10,)
    checkpoint_every: float = 60.0

    def progress(self, step: int, seconds: float) -> float:
        """Return which part of the run is done."""
        by_steps = step / self.steps if self.steps else 0.0
        return max(by_steps, seconds / (60.0 * self.minutes) if self.minutes else 0.0)


def load_images(path: Path) -> tuple[Tensor, Tensor]:
    """Return training images in [−1, 1] as float32 [n, 1, 32, 32] (padded with −1), and labels int64 [n]."""
    with np.load(path) as data:
        images, labels = data["train_images"], data["train_labels"]
    scaled = torch.from_numpy(images).float().movedim(-1, 1) / 127.5 - 1.0
    return torch.nn.functional.pad(scaled, (2, 2, 2, 2), value=-1.0), torch.from_numpy(labels).long()


def stratified_times(process: VPDiscrete, batch: int, generator: torch.Generator) -> Tensor:
    """Return ``batch`` times whose λ follow N(0.5, 1.7²) in equal strata, within the process's range."""
    device = generator.device
    quantiles = (torch.arange(batch, device=device) + torch.rand(batch, generator=generator, device=device)) / batch
    half_logsnr = 0.5 + 1.7 * torch.special.ndtri(quantiles.double())
    return process.time(half_logsnr).clamp(process.t_min, process.t_max)


def velocity_loss(
    network: Callable[..., Any],
    process: VPDiscrete,
    x_0: Tensor,
    labels: Tensor,
    t: Tensor,
    noise: Tensor,
    autocast: bool = True,
) -> Tensor:
    """Return the mean squared error of the v-prediction, v = α·ε − σ·x_0 (arXiv 2202.00512)."""
    alpha, sigma = (f(t).float().view(-1, 1, 1, 1) for f in (process.alpha, process.sigma))
    x_t = (alpha * x_0 + sigma * noise).contiguous(memory_format=torch.channels_last)
    with torch.autocast(x_0.device.type, torch.bfloat16, enabled=autocast):
        velocity = network(x_t, process.network_time(t).float(), class_labels=labels).sample
    return (velocity.float() - (alpha * noise - sigma * x_0)).square().mean()


def flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return images [n, C, H, W], half of them mirrored."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
    return torch.where(mirrored, images.flip(-1), images)


def learning_rate(progress: float, step: int, settings: Settings) -> float:
    """Return the rate at ``step``: a linear rise, times half a cosine down to zero at the end of the run."""
    rise = min(1.0, (step + 1) / settings.warm_up)
    return settings.peak * rise * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def new_network(settings: Settings) -> torch.nn.Module:
    """Return the network that training begins with."""
    from diffusers import UNet2DModel

    if settings.start is not None:
        network = UNet2DModel.from_config(UNet2DModel.load_config(settings.start))
        network.load_state_dict(load_file(settings.start / "diffusion_pytorch_model.safetensors"))
        return network
    torch.manual_seed(settings.seed)
    return UNet2DModel(**{**NETWORK, "block_out_channels": settings.channels})


def train(data: Path, out: Path, settings: Settings) -> None:
    """Train, keeping a checkpoint in ``out``; a run that was stopped goes on from it, to the same end."""
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device(settings.device)
    network = new_network(settings).to(device, memory_format=torch.channels_last).train()
    parameters = list(network.parameters())
    averages = PowerAverages(parameters)
    optimiser = torch.optim.AdamW(parameters, settings.peak, betas=(0.9, 0.99), weight_decay=0.01)
    process = VPDiscrete.from_betas()
    images, all_labels = (part.to(device) for part in load_images(data))
    parts = {"network": network, "averages": averages, "optimiser": optimiser}
    start, before = _resume(out, parts, device)
    forward = torch.compile(network) if settings.compiled else network
    began, step, seconds, losses = time.perf_counter() - before, start, before, []
    logged, saved = (step, seconds), seconds
    while (progress := settings.progress(step, seconds)) < 1.0:
        generator = torch.Generator(device).manual_seed(settings.seed * 1_000_003 + step)
        chosen = torch.randint(len(images), (settings.batch,), generator=generator, device=device)
        dropped = torch.rand(settings.batch, generator=generator, device=device) < 0.1
        labels = all_labels[chosen].masked_fill(dropped, NULL_CLASS)
        t = stratified_times(process, settings.batch, generator)
        x_0 = flipped(images[chosen], generator)
        noise = torch.randn(x_0.shape, generator=generator, device=device)
        loss = velocity_loss(forward, process, x_0, labels, t, noise, settings.precision == "bfloat16")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(progress, step, settings)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        averages.update(parameters, step)
        losses.append(loss.detach())
        seconds = time.perf_counter() - began
        after = settings.progress(step, seconds)
        if int(after * SNAPSHOTS) > int(progress * SNAPSHOTS):
            _snapshot(out, averages, step)
        if step % LOG_EVERY == 0:
            _log(out / "loss.jsonl", step, losses, seconds, settings.batch * (step - logged[0]) / (seconds - logged[1]))
            losses, logged = [], (step, seconds)
        if seconds - saved >= settings.checkpoint_every or after >= 1.0:
            _save(out / "checkpoint.pt", parts, step, seconds)
            write_network(network, averages.averages[TRACKED[-1]], out / "unet")
            saved = seconds
    for name, length in zip(
        ["unet", *(f"unet-{one:g}" for one in settings.lengths[1:])], settings.lengths, strict=True
    ):
        write_network(network, average_of_length(out, length), out / name)


def average_of_length(out: Path, length: float) -> list[Tensor]:
    """Return the average of another length at the run's end, of the snapshots in ``out``."""
    found = sorted((out / "snapshots").glob("*.safetensors"))
    steps = [int(path.stem) for path in found]
    kept = [(step, tracked) for step in steps for tracked in TRACKED]
    weights = iter(combination(kept, length, steps[-1]))
    total: dict[int, Tensor] = {}
    for path in found:
        tensors = load_file(path)
        for tracked in TRACKED:
            weight = next(weights)
            for n in range(len(tensors) // len(TRACKED)):
                total[n] = total.get(n, 0.0) + weight * tensors[f"{tracked}/{n}"].double()
    return [total[n].float() for n in sorted(total)]


def write_network(network: Any, weights: list[Tensor], folder: Path) -> None:
    """Write the network with other weights, in half precision, as diffusers reads it."""
    names = [name for name, _ in network.named_parameters()]
    state = dict(zip(names, (weight.half().cpu().contiguous() for weight in weights), strict=True))
    network.save_config(folder)
    save_file(state, folder / "new.tmp", metadata={"format": "pt"})
    os.replace(folder / "new.tmp", folder / "diffusion_pytorch_model.safetensors")


def _snapshot(out: Path, averages: PowerAverages, step: int) -> None:
    folder = out / "snapshots"
    folder.mkdir(exist_ok=True)
    state = averages.state_dict()
    tensors = {f"{length}/{n}": value.cpu().contiguous() for length in state for n, value in enumerate(state[length])}
    save_file(tensors, folder / "new.tmp")
    os.replace(folder / "new.tmp", folder / f"{step:08d}.safetensors")


def _resume(out: Path, parts: dict[str, Any], device: torch.device) -> tuple[int, float]:
    """Load the checkpoint into its parts, if there is one; return the steps done and the seconds they took."""
    checkpoint = out / "checkpoint.pt"
    if not checkpoint.exists():
        return 0, 0.0
    state = torch.load(checkpoint, weights_only=True, map_location=device)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    for path in (out / "snapshots").glob("*.safetensors"):
        if int(path.stem) > state["step"]:
            path.unlink()  # of steps that are made again
    return state["step"], state["seconds"]


def _save(checkpoint: Path, parts: dict[str, Any], step: int, seconds: float) -> None:
    """Write a checkpoint whole: under another name first."""
    state = {name: part.state_dict() for name, part in parts.items()}
    torch.save({**state, "step": step, "seconds": seconds}, checkpoint.with_suffix(".tmp"))
    os.replace(checkpoint.with_suffix(".tmp"), checkpoint)


def _log(log: Path, step: int, losses: list[Tensor], seconds: float, speed: float) -> None:
    line = {"step": step, "loss": round(float(torch.stack(losses).mean()), 5), "seconds": round(seconds)}
    with log.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(f"step {step}: loss {line['loss']}, {line['seconds']} s, {speed:.0f} images/s", flush=True)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="fashion_mnist.npz with train_images, train_labels")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint, loss.jsonl and unet/")
    parser.add_argument("--steps", type=int, help="end after so many steps")
    parser.add_argument("--minutes", type=float, help="end after so many minutes of training")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3, dest="peak")
    parser.add_argument("--warm-up", type=int, default=300, help="steps of the rate's rise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["bfloat16", "tf32", "float32"], default="bfloat16")
    parser.add_argument("--compile", action="store_true", dest="compiled")
    parser.add_argument("--channels", type=int, nargs="+", default=list(NETWORK["block_out_channels"]))
    parser.add_argument("--start", type=Path, help="a folder of weights to go on from")
    parser.add_argument("--ema", type=float, nargs="+", default=[0.10], dest="lengths", help="lengths of averages")
    args = vars(parser.parse_args())
    if not (args["steps"] or args["minutes"]):
        parser.error("give --steps, --minutes or both")
    data, out = args.pop("data"), args.pop("out")
    torch.set_float32_matmul_precision("high" if args["precision"] == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = args["precision"] != "float32"
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in args.items()}
    train(data, out, Settings(**settings))


if __name__ == "__main__":
    main()

"""What it costs to run a pipeline as a model, beside the pipeline's own loop under fewstep's scheduler.

    python -W ignore benchmarks/pipeline_overhead.py [--rounds 15]

The same plan of 8 steps of UniPC-2, from the same noise, to the same latents: ``pipe(…)`` after ``fs.enable``, and
``fs.sample(fs.models.from_pipeline(pipe, …), …)``, which calls the pipeline once a step. Real pipelines, latents of the
usual size, and networks that are cheap, for only what is around them is measured: SDXL at 1024×1024 with guidance,
[1, 4, 128, 128], and Flux at 1024×1024, packed [1, 4096, 64]. The time is the median over rounds of what a call more or
less takes, in ms; the memory is the most that the process holds above what it held before, each way in a process of
its own (Linux).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import figures
import torch

import fewstep as fs

STEPS = 8


def sdxl() -> tuple[Any, dict[str, Any]]:
    """Return SDXL's pipeline with a small network, and its call."""
    torch.manual_seed(0)
    network = diffusers.UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=2,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=32,
        use_linear_projection=True,
    )
    decoder = diffusers.AutoencoderKL(
        block_out_channels=(4,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=2,
    )
    scheduler = diffusers.EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    absent = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    pipe = diffusers.StableDiffusionXLPipeline(
        vae=decoder, unet=network, scheduler=scheduler, add_watermarker=False, **absent
    )
    words, pooled = torch.randn(2, 77, 16).split(1), torch.randn(2, 8).split(1)
    call = {
        "prompt_embeds": words[0],
        "negative_prompt_embeds": words[1],
        "pooled_prompt_embeds": pooled[0],
        "negative_pooled_prompt_embeds": pooled[1],
    }
    return pipe, call | {"height": 1024, "width": 1024}


def flux() -> tuple[Any, dict[str, Any]]:
    """Return Flux's pipeline with a small network, and its call."""
    torch.manual_seed(0)
    network = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=1,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
    )
    decoder = diffusers.AutoencoderKL(
        latent_channels=16,
        block_out_channels=(4,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=2,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    absent = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    pipe = diffusers.FluxPipeline(transformer=network, vae=decoder, scheduler=scheduler, **absent)
    call = {"prompt_embeds": torch.randn(1, 64, 16), "pooled_prompt_embeds": torch.randn(1, 16)}
    return pipe, call | {"height": 1024, "width": 1024}


PIPELINES: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {"SDXL": sdxl, "Flux": flux}
WAYS = ("own", "model")


def ways(name: str) -> dict[str, Callable[[], torch.Tensor]]:
    """Return the pipeline's own loop and the pipeline as a model, each to latents."""
    pipe, call = PIPELINES[name]()
    pipe.set_progress_bar_config(disable=True)
    model = fs.models.from_pipeline(pipe, **call)
    solver, grid = fs.UniPC(2), fs.grids.uniform_logsnr(model.process, STEPS, end="zero")
    noise = torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(0))
    fs.enable(pipe, solver=solver, grid=grid)
    x_T = noise * pipe.scheduler.init_noise_sigma
    latents = model.layout.latents_of(noise)

    def own() -> torch.Tensor:
        return pipe(**call, num_inference_steps=STEPS, latents=latents, output_type="latent").images

    def as_model() -> torch.Tensor:
        return model.layout.latents_of(fs.sample(model, solver, grid, x_T))

    return {"own": own, "model": as_model}


def timed(name: str, rounds: int) -> dict[str, Any]:
    """Return the times of both ways in turn, and how far their results are apart."""
    both = ways(name)
    results = [both[way]() for way in WAYS]
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            began = time.perf_counter()
            both[way]()
            seconds[way].append(time.perf_counter() - began)
    more = [1e3 * (b - a) / STEPS for a, b in zip(seconds["own"], seconds["model"], strict=True)]
    return {
        "own_ms": 1e3 * statistics.median(seconds["own"]) / STEPS,
        "more_ms": statistics.median(more),
        "ratio": statistics.median(b / a for a, b in zip(seconds["own"], seconds["model"], strict=True)),
        "apart": float((results[0] - results[1]).abs().max() / results[0].abs().max()),
    }


def held(name: str, way: str) -> float:
    """Return the most MB that one run holds above what was held before, in a process of its own."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # What is freed goes back to the system, so that it is not counted.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_held, (name, way))


def _held(name: str, way: str) -> float:
    torch.set_num_threads(1)
    run = ways(name)[way]
    run()
    Path("/proc/self/clear_refs").write_text("5")  # The highest value so far is forgotten.
    before = _memory("VmRSS")
    run()
    return (_memory("VmHWM") - before) / 1024


def _memory(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def report() -> str:
    """Return the table."""
    lines = [
        "| pipeline | own loop, ms a step | as a model, ms more | ratio | own loop's memory | a model's | apart |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, found in figures.read("pipeline_overhead").items():
        memory = " | ".join(f"{found['memory'][way]:.0f} MB" for way in WAYS)
        lines.append(
            f"| {name} | {found['own_ms']:.1f} | {found['more_ms']:.2f} | {found['ratio']:.2f} | {memory} | "
            f"{found['apart']:.0e} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name in PIPELINES:
        memory = {way: held(name, way) for way in WAYS}
        found[name] = {**timed(name, args.rounds), "memory": memory}
        print(name, found[name], flush=True)
    figures.write("pipeline_overhead", found)


if __name__ == "__main__":
    main()

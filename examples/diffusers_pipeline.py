"""A diffusers pipeline with fewstep switched on, looked into, changed, and switched off.

python examples/diffusers_pipeline.py

The pipeline here is built from its configuration, with random weights, so that the script runs in seconds and offline.
With a real one only the first line of ``main`` changes:

    pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0").to("cuda")
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

import fewstep as fs


def tiny_pipeline() -> DiTPipeline:
    """Return a class-conditional pipeline over latents, with random weights."""
    torch.manual_seed(0)
    network = DiTTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=4,
        attention_head_dim=4,
        in_channels=4,
        num_attention_heads=2,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
    )
    decoder = AutoencoderKL(
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
    )
    pipe = DiTPipeline(network.eval(), decoder, DDIMScheduler(clip_sample=False))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: DiTPipeline) -> list:
    """Return two pictures of two classes, the same noise each time."""
    return pipe(class_labels=[1, 2], generator=torch.Generator().manual_seed(0)).images


def main() -> None:
    """Switch fewstep on, with the recommended settings and with others, and off."""
    pipe = tiny_pipeline()

    fs.enable(pipe, steps=8)  # solver and grid that suit the pipeline's family
    draw(pipe)
    print(fs.summary(pipe), "\n")

    fs.enable(pipe, steps=8, solver="sa", grid="uniform_time", tau=0.4)  # a stochastic solver
    draw(pipe)
    print(fs.summary(pipe), "\n")

    process = pipe.scheduler.formulation.process
    fs.enable(pipe, grid=fs.grids.early_end(process, 5))  # any grid of this process
    draw(pipe)
    print(fs.summary(pipe), "\n")

    fs.disable(pipe)  # the pipeline as it was
    print("scheduler:", type(pipe.scheduler).__name__)


if __name__ == "__main__":
    main()

"""Real diffusers pipelines with tiny random weights; embeddings take the place of text encoders."""

from __future__ import annotations

import diffusers
import numpy as np
import torch
from diffusers import schedulers
from PIL import Image


def embeddings(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def picture(size=16, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8))


def vae(channels=4):
    torch.manual_seed(1)
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=16,
        shift_factor=0.0,
        scaling_factor=1.0,
    )


def unet(in_channels=4, **settings):
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=8,
        in_channels=in_channels,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
        **settings,
    )


SD_SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
SD_CALL = {"prompt_embeds": embeddings(1, 5, 16), "negative_prompt_embeds": embeddings(1, 5, 16, seed=1)}


def _stable_diffusion(pipeline, prediction_type="epsilon", in_channels=4, **parts):
    scheduler = schedulers.PNDMScheduler(**SD_SCHEDULER, prediction_type=prediction_type, skip_prk_steps=True)
    return pipeline(
        vae=vae(),
        unet=unet(in_channels),
        scheduler=scheduler,
        text_encoder=None,
        tokenizer=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **parts,
    )


def stable_diffusion(prediction_type="epsilon"):
    return _stable_diffusion(diffusers.StableDiffusionPipeline, prediction_type), {**SD_CALL, "height": 16, "width": 16}


def stable_diffusion_v():
    return stable_diffusion("v_prediction")


def stable_diffusion_image():
    call = {**SD_CALL, "image": picture(), "strength": 0.6}
    return _stable_diffusion(diffusers.StableDiffusionImg2ImgPipeline), call


def stable_diffusion_inpaint():
    mask = Image.fromarray(np.kron(np.array([[0, 255]]), np.ones((16, 8))).astype(np.uint8))
    call = {**SD_CALL, "image": picture(), "mask_image": mask, "height": 16, "width": 16, "strength": 1.0}
    return _stable_diffusion(diffusers.StableDiffusionInpaintPipeline), call


def controlnet():
    torch.manual_seed(2)
    net = diffusers.ControlNetModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        in_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
        conditioning_embedding_out_channels=(8, 8),
    )
    pipe = _stable_diffusion(diffusers.StableDiffusionControlNetPipeline, controlnet=net)
    return pipe, {**SD_CALL, "image": picture(8), "height": 16, "width": 16}


XL_CALL = {
    **SD_CALL,
    "pooled_prompt_embeds": embeddings(1, 8, seed=2),
    "negative_pooled_prompt_embeds": embeddings(1, 8, seed=3),
}


def _stable_diffusion_xl(pipeline):
    network = unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=32,
        use_linear_projection=True,
    )
    return pipeline(
        vae=vae(),
        unet=network,
        scheduler=schedulers.EulerDiscreteScheduler(**SD_SCHEDULER, timestep_spacing="leading"),
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        add_watermarker=False,
    )


def stable_diffusion_xl():
    return _stable_diffusion_xl(diffusers.StableDiffusionXLPipeline), {**XL_CALL, "height": 16, "width": 16}


def stable_diffusion_xl_image():
    call = {**XL_CALL, "image": picture(), "strength": 0.6}
    return _stable_diffusion_xl(diffusers.StableDiffusionXLImg2ImgPipeline), call


def dit():
    torch.manual_seed(0)
    network = diffusers.DiTTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=4,
        attention_head_dim=4,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
    )
    scheduler = schedulers.DDIMScheduler(clip_sample=False)
    return diffusers.DiTPipeline(network, vae(), scheduler), {"class_labels": [1, 2]}


def pixart():
    torch.manual_seed(0)
    network = diffusers.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=16,
        in_channels=4,
        cross_attention_dim=16,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        use_additional_conditions=False,
    )
    scheduler = schedulers.DPMSolverMultistepScheduler()
    pipe = diffusers.PixArtAlphaPipeline(
        tokenizer=None, text_encoder=None, vae=vae(), transformer=network, scheduler=scheduler
    )
    mask = torch.ones(1, 5)
    call = {**SD_CALL, "prompt_attention_mask": mask, "negative_prompt_attention_mask": mask, "negative_prompt": None}
    return pipe, {**call, "height": 16, "width": 16, "use_resolution_binning": False}


SD3_CALL = {
    "prompt_embeds": embeddings(1, 5, 32),
    "negative_prompt_embeds": embeddings(1, 5, 32, seed=1),
    "pooled_prompt_embeds": embeddings(1, 64, seed=2),
    "negative_pooled_prompt_embeds": embeddings(1, 64, seed=3),
}


def _stable_diffusion_3(pipeline):
    torch.manual_seed(0)
    network = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        out_channels=4,
    )
    absent = dict.fromkeys(f"{kind}{n}" for kind in ("text_encoder", "tokenizer") for n in ("", "_2", "_3"))
    scheduler = schedulers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return pipeline(transformer=network, scheduler=scheduler, vae=vae(), **absent)


def stable_diffusion_3():
    return _stable_diffusion_3(diffusers.StableDiffusion3Pipeline), {**SD3_CALL, "height": 16, "width": 16}


def stable_diffusion_3_image():
    call = {**SD3_CALL, "image": picture(), "strength": 0.6, "height": 16, "width": 16}
    return _stable_diffusion_3(diffusers.StableDiffusion3Img2ImgPipeline), call


FLUX_CALL = {"prompt_embeds": embeddings(1, 5, 16), "pooled_prompt_embeds": embeddings(1, 16, seed=2)}


def _flux(pipeline):
    torch.manual_seed(0)
    network = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=[4, 4, 8],
    )
    absent = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    scheduler = schedulers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return pipeline(transformer=network, scheduler=scheduler, vae=vae(), **absent)


def flux():
    return _flux(diffusers.FluxPipeline), {**FLUX_CALL, "height": 16, "width": 16}


def flux_image():
    call = {**FLUX_CALL, "image": picture(), "strength": 0.6, "height": 16, "width": 16}
    return _flux(diffusers.FluxImg2ImgPipeline), call


def wan():
    torch.manual_seed(0)
    coder = diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    network = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    scheduler = schedulers.FlowMatchEulerDiscreteScheduler(shift=7.0)
    pipe = diffusers.WanPipeline(tokenizer=None, text_encoder=None, vae=coder, scheduler=scheduler, transformer=network)
    call = {"prompt_embeds": embeddings(1, 5, 32), "negative_prompt_embeds": embeddings(1, 5, 32, seed=1)}
    return pipe, {**call, "height": 16, "width": 16, "num_frames": 5}


TEXT_TO_IMAGE = [
    stable_diffusion,
    stable_diffusion_v,
    stable_diffusion_xl,
    dit,
    pixart,
    stable_diffusion_3,
    flux,
    wan,
    controlnet,
]
IMAGE_TO_IMAGE = [
    stable_diffusion_image,
    stable_diffusion_inpaint,
    stable_diffusion_xl_image,
    stable_diffusion_3_image,
    flux_image,
]


def run(pipe, call, steps=4, **more):
    """Call the pipeline, its networks in evaluation mode, and return its pictures or latents as a tensor."""
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    generator = more.pop("generator", torch.Generator().manual_seed(0))
    settings = {"output_type": "np", "num_inference_steps": steps, "generator": generator, **call, **more}
    return torch.as_tensor(np.asarray(pipe(**settings)[0]))

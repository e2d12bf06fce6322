"""Real diffusers pipelines of newer families with tiny random weights; embeddings take the place of text encoders."""

from __future__ import annotations

import diffusers
import torch
from diffusers import schedulers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
    T5Config,
    T5EncoderModel,
)

from support.tiny_pipelines import embeddings, pixart, vae, wan

TEXT = {"prompt_embeds": embeddings(1, 5, 16), "negative_prompt_embeds": embeddings(1, 5, 16, seed=1)}
MASKS = dict.fromkeys(("prompt_attention_mask", "negative_prompt_attention_mask"), torch.ones(1, 5, dtype=torch.bool))
SIZE = {"height": 16, "width": 16}
FLOW = {"shift": 3.0}


def _made(pipeline, network, coder, scheduler=None, **parts):
    absent = {"text_encoder": None, "tokenizer": None}
    scheduler = schedulers.FlowMatchEulerDiscreteScheduler(**FLOW) if scheduler is None else scheduler
    return pipeline(transformer=network.eval(), vae=coder.eval(), scheduler=scheduler, **absent, **parts)


def pixart_sigma():
    pipe, call = pixart()
    parts = {name: part for name, part in pipe.components.items() if name not in ("feature_extractor", "image_encoder")}
    return diffusers.PixArtSigmaPipeline(**parts), call


def flux_2():
    torch.manual_seed(0)
    network = diffusers.Flux2Transformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        timestep_guidance_channels=256,
        axes_dims_rope=[4, 4, 4, 4],
    )
    coder = diffusers.AutoencoderKLFlux2(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        block_out_channels=(4,),
        layers_per_block=1,
        latent_channels=1,
        norm_num_groups=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return _made(diffusers.Flux2Pipeline, network, coder), {"prompt_embeds": embeddings(1, 5, 16), **SIZE}


def qwen_image():
    torch.manual_seed(0)
    network = diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=3,
        joint_attention_dim=16,
        axes_dims_rope=(8, 4, 4),
    )
    coder = diffusers.AutoencoderKLQwenImage(
        base_dim=24,
        z_dim=4,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    masks = {"prompt_embeds_mask": torch.ones(1, 5), "negative_prompt_embeds_mask": torch.ones(1, 5)}
    return _made(diffusers.QwenImagePipeline, network, coder), {**TEXT, **masks, **SIZE, "true_cfg_scale": 2.0}


def z_image():
    torch.manual_seed(0)
    network = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=16,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    with torch.no_grad():  # Made by torch.empty.
        network.x_pad_token.fill_(1.0)
        network.cap_pad_token.fill_(1.0)
    texts = {"prompt_embeds": [embeddings(5, 16)], "negative_prompt_embeds": [embeddings(5, 16, seed=1)]}
    return _made(diffusers.ZImagePipeline, network, vae(16)), {**texts, **SIZE}


def sana():
    torch.manual_seed(0)
    network = diffusers.SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=16,
        sample_size=32,
    )
    coder = diffusers.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=[1, 1],
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    call = {**TEXT, **MASKS, "height": 32, "width": 32, "negative_prompt": None, "use_resolution_binning": False}
    return _made(diffusers.SanaPipeline, network, coder), call


def lumina_2():
    torch.manual_seed(0)
    network = diffusers.Lumina2Transformer2DModel(
        sample_size=4,
        patch_size=2,
        in_channels=4,
        hidden_size=8,
        num_layers=2,
        num_attention_heads=1,
        num_kv_heads=1,
        multiple_of=16,
        ffn_dim_multiplier=None,
        scaling_factor=1.0,
        axes_dim_rope=[4, 2, 2],
        cap_feat_dim=16,
    )
    return _made(diffusers.Lumina2Pipeline, network, vae()), {**TEXT, **MASKS, **SIZE}


def hunyuan_video():
    torch.manual_seed(0)
    network = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    )
    coder = diffusers.AutoencoderKLHunyuanVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        spatial_compression_ratio=8,
        temporal_compression_ratio=4,
    )
    call = {
        "prompt_embeds": embeddings(1, 5, 16),
        "pooled_prompt_embeds": embeddings(1, 8, seed=2),
        "prompt_attention_mask": torch.ones(1, 5),
        "num_frames": 5,
    }
    pipe = _made(diffusers.HunyuanVideoPipeline, network, coder, text_encoder_2=None, tokenizer_2=None)
    return pipe, {**call, **SIZE}


def wan_22():
    """Two experts: the first above 0.875 of the training timesteps, the second below."""
    one, call = wan()
    torch.manual_seed(7)
    second = diffusers.WanTransformer3DModel(**{k: v for k, v in one.transformer.config.items() if k[:1] != "_"})
    parts = {**one.components, "transformer_2": second.eval()}
    return diffusers.WanPipeline(**parts, boundary_ratio=0.875), call


def ltx():
    torch.manual_seed(0)
    network = diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=4,
        attention_head_dim=8,
        cross_attention_dim=32,
        num_layers=1,
        caption_channels=16,
    )
    coder = diffusers.AutoencoderKLLTXVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1, 1, 1, 1),
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    call = {**TEXT, **MASKS, "height": 32, "width": 32, "num_frames": 9}
    return _made(diffusers.LTXPipeline, network, coder), call


def cogvideox():
    torch.manual_seed(0)
    network = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=16,
        num_layers=1,
        sample_width=2,
        sample_height=2,
        sample_frames=9,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=5,
    )
    coder = diffusers.AutoencoderKLCogVideoX(
        in_channels=3,
        out_channels=3,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    pipe = _made(diffusers.CogVideoXPipeline, network, coder, schedulers.CogVideoXDDIMScheduler())
    return pipe, {**TEXT, **SIZE, "num_frames": 9}


def mochi():
    torch.manual_seed(0)
    network = diffusers.MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=12,
        qk_norm="rms_norm",
        text_embed_dim=16,
        time_embed_dim=4,
        max_sequence_length=5,
    )
    coder = diffusers.AutoencoderKLMochi(
        latent_channels=12,
        out_channels=3,
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    )
    scheduler = schedulers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    return _made(diffusers.MochiPipeline, network, coder, scheduler), {**TEXT, **MASKS, **SIZE, "num_frames": 7}


def audioldm_2():
    torch.manual_seed(0)
    network = diffusers.AudioLDM2UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=32,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=(16, 16),
    )
    coder = diffusers.AutoencoderKL(
        block_out_channels=[8, 16],
        in_channels=1,
        out_channels=1,
        norm_num_groups=8,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
    )
    vocoder = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=8,
            sampling_rate=16000,
            upsample_initial_channel=16,
            upsample_rates=[2, 2],
            upsample_kernel_sizes=[4, 4],
            resblock_kernel_sizes=[3, 7],
            resblock_dilation_sizes=[[1, 3, 5], [1, 3, 5]],
            normalize_before=False,
        )
    )
    scheduler = schedulers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )
    absent = ("text_encoder", "projection_model", "tokenizer", "tokenizer_2")
    language = GPT2LMHeadModel(GPT2Config(n_embd=16, n_head=1, n_layer=1, vocab_size=10, n_positions=9))
    text = T5EncoderModel(T5Config(vocab_size=10, d_model=16, d_ff=16, d_kv=8, num_heads=1, num_layers=1))
    pipe = diffusers.AudioLDM2Pipeline(
        vae=coder.eval(),
        unet=network.eval(),
        scheduler=scheduler,
        vocoder=vocoder.eval(),
        feature_extractor=None,
        text_encoder_2=text,
        language_model=language,
        **dict.fromkeys(absent),
    )
    call = {
        **TEXT,
        "generated_prompt_embeds": embeddings(1, 6, 16, seed=2),
        "negative_generated_prompt_embeds": embeddings(1, 6, 16, seed=3),
        "attention_mask": torch.ones(1, 5),
        "negative_attention_mask": torch.ones(1, 5),
        "audio_length_in_s": 0.01,
    }
    return pipe, call


STABLE_AUDIO_SCHEDULER = {
    "sigma_data": 1.0,
    "sigma_min": 0.3,
    "sigma_max": 500.0,
    "prediction_type": "v_prediction",
    "sigma_schedule": "exponential",
}


def stable_audio(scheduler=None):
    """With the EDM scheduler that it may have instead of its own, which needs torchsde."""
    torch.manual_seed(0)
    network = diffusers.StableAudioDiTModel(
        sample_size=4,
        in_channels=3,
        num_layers=2,
        attention_head_dim=4,
        num_key_value_attention_heads=2,
        num_attention_heads=4,
        out_channels=3,
        cross_attention_dim=4,
        time_proj_dim=8,
        global_states_input_dim=8,
        cross_attention_input_dim=4,
    )
    coder = diffusers.AutoencoderOobleck(
        encoder_hidden_size=6,
        downsampling_ratios=[1, 2],
        decoder_channels=3,
        decoder_input_channels=3,
        audio_channels=2,
        channel_multiples=[2, 4],
        sampling_rate=4,
    )
    projection = diffusers.StableAudioProjectionModel(
        text_encoder_dim=16, conditioning_dim=4, min_value=0, max_value=32
    )
    pipe = diffusers.StableAudioPipeline(
        vae=coder.eval(),
        text_encoder=None,
        projection_model=projection.eval(),
        tokenizer=None,
        transformer=network.eval(),
        scheduler=scheduler or schedulers.EDMDPMSolverMultistepScheduler(**STABLE_AUDIO_SCHEDULER),
    )
    return pipe, {**TEXT, "audio_end_in_s": 1.5}


ALL = [
    pixart_sigma,
    flux_2,
    qwen_image,
    z_image,
    sana,
    lumina_2,
    hunyuan_video,
    wan_22,
    ltx,
    cogvideox,
    mochi,
    audioldm_2,
    stable_audio,
]

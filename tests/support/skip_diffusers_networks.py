"""Small networks of every class of diffusers that has skips, each with a call."""

from __future__ import annotations

import torch

TEXT = torch.linspace(-1.0, 1.0, 2 * 3 * 8).view(2, 3, 8)
IMAGE = torch.sin(torch.arange(2 * 4 * 16 * 16).float()).view(2, 4, 16, 16)
VIDEO = torch.sin(torch.arange(2 * 4 * 2 * 16 * 16).float()).view(2, 4, 2, 16, 16)
TIMES = torch.tensor([600, 600])
SMALL = {"sample_size": 16, "layers_per_block": 1, "block_out_channels": (8, 16), "norm_num_groups": 4}


def unet2d(down=("DownBlock2D", "AttnDownBlock2D"), up=("AttnUpBlock2D", "UpBlock2D"), **settings):
    from diffusers import UNet2DModel

    network = UNet2DModel(
        **{**SMALL, "down_block_types": down, "up_block_types": up, "attention_head_dim": 4, **settings}
    )
    return network, lambda: network(IMAGE[:, :3], TIMES).sample


def unet2d_skip(kind):
    """The blocks of NCSN++, which count groups of four channels, up to 32."""
    return unet2d(
        (f"{kind}DownBlock2D", f"{kind}DownBlock2D"),
        (f"{kind}UpBlock2D", f"{kind}UpBlock2D"),
        block_out_channels=(32, 32),
        norm_num_groups=32,
    )


def conditional(down="CrossAttnDownBlock2D", up="CrossAttnUpBlock2D", *, call=None, **settings):
    from diffusers import UNet2DConditionModel

    network = UNet2DConditionModel(
        **{
            **SMALL,
            "down_block_types": (down, "DownBlock2D"),
            "up_block_types": ("UpBlock2D", up),
            "cross_attention_dim": 8,
            "attention_head_dim": 4,
            **settings,
        }
    )
    return network, lambda: network(IMAGE, TIMES, TEXT, **(call or {})).sample


def stable_diffusion_15():
    """The layout of Stable Diffusion 1.5, 32 times as narrow."""
    return conditional(
        block_out_channels=(10, 20, 40, 40),
        layers_per_block=2,
        norm_num_groups=5,
        attention_head_dim=5,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )


def sdxl():
    """The layout of Stable Diffusion XL: text_time conditioning, blocks with several transformer layers."""
    added = {"text_embeds": TEXT[:, 0], "time_ids": torch.ones(2, 6)}
    return conditional(
        block_out_channels=(8, 16, 16),
        layers_per_block=2,
        transformer_layers_per_block=(1, 2, 2),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        use_linear_projection=True,
        projection_class_embeddings_input_dim=32,
        call={"added_cond_kwargs": added},
    )


def k_blocks():
    """The K-UNet of the ×2 latent upscaler: its up blocks use the last of their residuals, the first block none."""
    return conditional(
        block_out_channels=(32, 64, 64),
        layers_per_block=2,
        mid_block_type=None,
        norm_num_groups=None,
        down_block_types=("KDownBlock2D", "KCrossAttnDownBlock2D", "KCrossAttnDownBlock2D"),
        up_block_types=("KCrossAttnUpBlock2D", "KCrossAttnUpBlock2D", "KUpBlock2D"),
        time_embedding_type="fourier",
        time_embedding_dim=64,
        attention_head_dim=16,
        act_fn="gelu",
        conv_in_kernel=1,
        conv_out_kernel=1,
        resnet_time_scale_shift="scale_shift",
    )


def simple():
    return conditional(
        "SimpleCrossAttnDownBlock2D",
        "SimpleCrossAttnUpBlock2D",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    )


def unet1d():
    from diffusers import UNet1DModel

    network = UNet1DModel(sample_size=64, block_out_channels=(32, 32, 64), extra_in_channels=64)
    x = torch.sin(torch.arange(2 * 2 * 64).float()).view(2, 2, 64)
    return network, lambda: network(x, TIMES).sample


def unet3d():
    from diffusers import UNet3DConditionModel

    network = UNet3DConditionModel(
        **SMALL,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=8,
        attention_head_dim=4,
    )
    return network, lambda: network(VIDEO, TIMES, TEXT).sample


def motion():
    from diffusers import UNetMotionModel

    network = UNetMotionModel(
        **SMALL,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
        cross_attention_dim=8,
        num_attention_heads=2,
        motion_num_attention_heads=2,
        motion_max_seq_length=4,
    )
    text = TEXT.repeat_interleave(2, dim=0)
    return network, lambda: network(VIDEO, TIMES, text).sample


def stable_video():
    from diffusers import UNetSpatioTemporalConditionModel

    network = UNetSpatioTemporalConditionModel(
        sample_size=16,
        in_channels=4,
        layers_per_block=1,
        block_out_channels=(32, 64),
        cross_attention_dim=8,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        addition_time_embed_dim=4,
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        num_attention_heads=(2, 2),
        projection_class_embeddings_input_dim=12,
    )
    frames = VIDEO.transpose(1, 2)
    return network, lambda: network(frames, TIMES, TEXT[:, :1], torch.ones(2, 3)).sample


def i2vgen():
    from diffusers import I2VGenXLUNet

    network = I2VGenXLUNet(
        **SMALL,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=8,
        attention_head_dim=4,
    )
    fps = torch.tensor([8, 8])
    return network, lambda: network(VIDEO, TIMES, fps, VIDEO, TEXT[:, :1], TEXT).sample


def kandinsky3():
    from diffusers import Kandinsky3UNet

    network = Kandinsky3UNet(
        in_channels=4,
        time_embedding_dim=8,
        groups=4,
        attention_head_dim=4,
        layers_per_block=2,
        block_out_channels=(16, 16, 32, 32),
        cross_attention_dim=8,
        encoder_hid_dim=8,
    )
    return network, lambda: network(IMAGE, TIMES, TEXT, torch.ones(2, 3)).sample


def stable_cascade():
    from diffusers.models import StableCascadeUNet

    network = StableCascadeUNet(
        in_channels=4,
        out_channels=4,
        timestep_ratio_embedding_dim=8,
        patch_size=1,
        conditioning_dim=8,
        block_out_channels=(8, 8),
        num_attention_heads=(2, 2),
        down_num_layers_per_block=(1, 1),
        up_num_layers_per_block=(1, 1),
        down_blocks_repeat_mappers=(1, 1),
        up_blocks_repeat_mappers=(1, 1),
        block_types_per_layer=(("SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock"),) * 2,
        clip_text_pooled_in_channels=8,
        clip_seq=2,
        kernel_size=3,
        dropout=(0.0, 0.0),
        self_attn=(True, True),
    )
    ratio = torch.full((2,), 0.6)
    return network, lambda: network(IMAGE, ratio, TEXT[:, :1]).sample


def hunyuan():
    from diffusers import HunyuanDiT2DModel
    from diffusers.models.embeddings import get_2d_rotary_pos_embed

    network = HunyuanDiT2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        patch_size=2,
        sample_size=16,
        hidden_size=16,
        num_layers=6,
        mlp_ratio=2.0,
        learn_sigma=False,
        cross_attention_dim=8,
        cross_attention_dim_t5=8,
        pooled_projection_dim=4,
        text_len=3,
        text_len_t5=3,
        use_style_cond_and_image_meta_size=False,
    )
    rotary = get_2d_rotary_pos_embed(8, ((0, 0), (8, 8)), (8, 8), output_type="pt")
    mask = torch.ones(2, 3)
    return network, lambda: network(IMAGE, TIMES.float(), TEXT, mask, TEXT, mask, image_rotary_emb=rotary).sample


def unidiffuser():
    from diffusers.pipelines.deprecated.unidiffuser.modeling_uvit import UTransformer2DModel

    network = UTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        num_layers=4,
        sample_size=16,
        patch_size=2,
        norm_num_groups=4,
    )
    return network, lambda: network(IMAGE, unpatchify=False, return_dict=False)[0]

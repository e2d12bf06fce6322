"""Folders of tiny pipelines with real text encoders and tokenizers, as ``save_pretrained`` writes them."""

from __future__ import annotations

import string
from pathlib import Path

import diffusers
import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

from support import tiny_pipelines as tiny
from support import tiny_transformer_pipelines as newer


def tokenizer():
    pieces = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=12)


def text_encoder(kind, width=8):
    torch.manual_seed(4)
    return kind(
        CLIPTextConfig(
            vocab_size=54,
            hidden_size=width,
            intermediate_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=12,
            bos_token_id=52,
            eos_token_id=53,
            projection_dim=width,
        )
    ).eval()


def stable_diffusion(path: Path) -> Path:
    """Write the pipeline into a folder."""
    pipe, _ = tiny.stable_diffusion()
    parts = {**pipe.components, "tokenizer": tokenizer(), "text_encoder": text_encoder(CLIPTextModel, width=16)}
    diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False).save_pretrained(path)
    return path


def stable_diffusion_xl(path: Path) -> Path:
    """Write the pipeline into a folder."""
    pipe, _ = tiny.stable_diffusion_xl()
    parts = {
        **pipe.components,
        "tokenizer": tokenizer(),
        "tokenizer_2": tokenizer(),
        "text_encoder": text_encoder(CLIPTextModel),
        "text_encoder_2": text_encoder(CLIPTextModelWithProjection),
    }
    diffusers.StableDiffusionXLPipeline(**parts, add_watermarker=False).save_pretrained(path)
    return path


def _t5(path: Path, make, width: int, encoder=T5EncoderModel, settings=T5Config, **more) -> Path:
    """Write a pipeline with T5's encoder of that width into a folder."""
    pipe, _ = make()
    letters = string.ascii_lowercase
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -4.0)]
    vocabulary = [*pieces, *((letter, -2.0) for letter in letters)]
    torch.manual_seed(5)
    text = encoder(settings(vocab_size=64, d_model=width, d_ff=16, d_kv=8, num_heads=1, num_layers=1))
    tokenizer = T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=16)
    parts = {**pipe.components, "tokenizer": tokenizer, "text_encoder": text.eval()}
    type(pipe)(**parts, **more).save_pretrained(path)
    return path


def wan_22(path: Path) -> Path:
    """Write the pipeline into a folder."""
    return _t5(path, newer.wan_22, 32, UMT5EncoderModel, UMT5Config, boundary_ratio=0.875)


def ltx(path: Path) -> Path:
    """Write the pipeline into a folder."""
    return _t5(path, newer.ltx, 16)


def stable_audio(path: Path) -> Path:
    """Write the pipeline into a folder."""
    return _t5(path, newer.stable_audio, 16)

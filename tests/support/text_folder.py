"""A folder of a tiny Stable Diffusion XL with real text encoders and tokenizers, as ``save_pretrained`` writes it."""

from __future__ import annotations

import string
from pathlib import Path

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from support import tiny_pipelines as tiny


def tokenizer():
    pieces = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=12)


def text_encoder(kind):
    torch.manual_seed(4)
    return kind(
        CLIPTextConfig(
            vocab_size=54,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=12,
            bos_token_id=52,
            eos_token_id=53,
            projection_dim=8,
        )
    ).eval()


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

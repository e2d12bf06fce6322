"""Stand-ins for what tests load from a hub by name: tiny tokenizers, configurations and networks, made on the spot."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import string
import sys
import types
from collections.abc import Iterator
from typing import Any
from unittest import mock

import diffusers
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

SPECIAL = ("<pad>", "</s>", "<unk>", "<s>")
CHARACTERS = string.ascii_lowercase + string.digits + " .,:;!?'\"-_/()[]{}<>|=+*#@&%$\n"
VISION_TOKENS = {"<|vision_start|>": 151652, "<|vision_end|>": 151653, "<|image_pad|>": 151655, "<|video_pad|>": 151656}
CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] if m['content'] is string else '' }}\n{% endfor %}"
SMALL = {
    "hidden_size": 32, "d_model": 32, "d_ff": 37, "d_kv": 8, "intermediate_size": 37, "num_layers": 2,
    "num_decoder_layers": 2, "num_hidden_layers": 2, "num_heads": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 1000, "projection_dim": 32, "image_size": 30,
    "patch_size": 15, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 3,
}  # fmt: skip
FAMILIES = {"t5": transformers.T5Config, "clip": transformers.CLIPConfig, "bert": transformers.BertConfig,
            "llama": transformers.LlamaConfig, "gemma": transformers.GemmaConfig}  # fmt: skip


def tokenizer(name: str = "") -> Any:
    """Return a tokenizer of single characters, whose numbers fit small embeddings."""
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *CHARACTERS))}
    if "qwen" in name.lower():
        vocabulary |= VISION_TOKENS
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>",
        model_max_length=77, chat_template=CHAT,
        additional_special_tokens=list(VISION_TOKENS) if "qwen" in name.lower() else None,
    )  # fmt: skip


def without_test_tools() -> None:
    """Let test modules import tools that only their tests use, and pipelines a cleaner of texts, which stay as is."""
    if not diffusers.utils.import_utils.is_ftfy_available():
        cleaner: Any = types.ModuleType("ftfy")
        cleaner.fix_text = lambda text: text
        sys.modules["ftfy"], diffusers.utils.import_utils._ftfy_available = cleaner, True
    for name in ("parameterized", "requests_mock"):
        if importlib.util.find_spec(name) is None:
            module: Any = types.ModuleType(name)
            module.parameterized = types.SimpleNamespace(expand=_as_it_is)
            module.parameterized_class = _as_it_is
            sys.modules[name] = module


def _as_it_is(*args: Any, **kwargs: Any) -> Any:
    return lambda decorated: decorated


def configuration(kind: type) -> Any:
    """Return a small configuration of a class."""
    known = inspect.signature(kind.__init__).parameters.keys() | set(getattr(kind, "__annotations__", {}))
    return kind(**{name: value for name, value in SMALL.items() if name in known})


@contextlib.contextmanager
def in_place() -> Iterator[None]:
    """Let ``from_pretrained`` of transformers make small things instead of fetching."""

    def any_tokenizer(cls: type, name: str, *args: Any, **kwargs: Any) -> Any:
        return tokenizer(name)

    def any_config(cls: type, name: str, *args: Any, **kwargs: Any) -> Any:
        if cls is not transformers.AutoConfig:
            return configuration(cls)
        for family, kind in FAMILIES.items():
            if family in name.lower():
                return configuration(kind)
        raise OSError(f"{name} is not known here")

    def any_model(cls: type, name: str, *args: Any, **kwargs: Any) -> Any:
        torch.manual_seed(0)
        return cls(configuration(cls.config_class)).eval()  # type: ignore[attr-defined]

    def any_image_processor(cls: type, name: str, *args: Any, **kwargs: Any) -> Any:
        return cls()

    replaced: list[tuple[type, Any]] = [
        (transformers.AutoTokenizer, any_tokenizer),
        (transformers.PreTrainedTokenizerBase, any_tokenizer),
        (transformers.AutoConfig, any_config),
        (transformers.PretrainedConfig, any_config),
        (transformers.PreTrainedModel, any_model),
        (transformers.image_processing_base.ImageProcessingMixin, any_image_processor),
        (transformers.FeatureExtractionMixin, any_image_processor),
    ]
    with contextlib.ExitStack() as stack:
        for owner, function in replaced:
            stack.enter_context(mock.patch.object(owner, "from_pretrained", classmethod(function)))
        yield

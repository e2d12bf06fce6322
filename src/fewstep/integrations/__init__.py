"""fewstep inside other people's software; each part is loaded when it is used, and its third party with it."""

from __future__ import annotations

import importlib
from typing import Any

from fewstep.integrations import accelerate as accelerate  # small; says where offloaded networks compute

__all__ = ["comfyui", "diffusers", "kdiffusion"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Nodes for ComfyUI; docs/comfyui.md shows them."""

from __future__ import annotations

from typing import Any

__all__ = ["comfy_entrypoint"]


async def comfy_entrypoint() -> Any:
    """Return the extension that ComfyUI asks for; a folder in ``custom_nodes`` imports this function."""
    from fewstep.integrations.comfyui.extension import entrypoint  # Needs ComfyUI.

    return entrypoint()

"""fewstep's nodes: copy this folder into ComfyUI's ``custom_nodes``, beside ``pip install fewstep[comfyui]``."""

from fewstep.integrations.comfyui import comfy_entrypoint

__all__ = ["comfy_entrypoint"]

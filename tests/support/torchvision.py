"""torchvision beside a torch that it was not built for: k-diffusion and ComfyUI import it and call none of its ops."""

from __future__ import annotations

import sys

import torch

_LIBRARIES: list[torch.library.Library] = []


def usable_torchvision() -> None:
    """Declare the two operators without which such a torchvision refuses to be imported."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)
        for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[module]

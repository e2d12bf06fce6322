"""Networks offloaded by accelerate: where they compute, which their parameters do not show."""

from __future__ import annotations

from typing import Any

from torch import nn

from fewstep.unwrap import offloads

__all__ = ["execution_device"]


@offloads
def execution_device(module: nn.Module) -> Any:
    """Return where accelerate's hook on ``module``, or one of several in a row, brings it for its calls."""
    hook = getattr(module, "_hf_hook", None)
    places = (getattr(one, "execution_device", None) for one in (hook, *getattr(hook, "hooks", ())))
    return next((place for place in places if place is not None), None)

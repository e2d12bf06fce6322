"""Published checkpoints: weights read without running code, and networks filled with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
from pydantic import ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fewstep.errors import InputError, reason_of
from fewstep.storage import check_readable

__all__ = ["STRICT", "filled", "read_checkpoint", "read_weights"]

Made = TypeVar("Made", bound=nn.Module)
STRICT = ConfigDict(strict=True, extra="forbid")
"""How settings of networks are read from a file: types are exact, and there are no others."""
NAMED = 3
"""Names of weights in a message."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint of torch or safetensors holds, a mapping; no code in it is run.

    Classes of Lightning that its checkpoints name are read as empty ones.

    Raises:
        InputError: if the file cannot be read so.
    """
    check_readable(path, "the checkpoint")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        torch.serialization.add_safe_globals(list(_INERT))
        held = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, UnpicklingError, SafetensorError) as error:
        raise InputError(
            f"{str(path)!r} cannot be read as a checkpoint without running code of it ({reason_of(error)}): download "
            "it again, or save its weights as .safetensors."
        ) from error
    if not isinstance(held, Mapping):
        raise InputError(f"{str(path)!r} holds {type(held).__name__}: a checkpoint's dictionary of weights is needed.")
    return dict(held)


def read_weights(path: Path, *within: str) -> dict[str, Tensor]:
    """Return the weights in a checkpoint by name: those under the first of the keys ``within`` that it has, or its own.

    Raises:
        InputError: if the file cannot be read, or holds none.
    """
    held = read_checkpoint(path)
    for key in within:
        if isinstance(held.get(key), Mapping):
            held = dict(held[key])
            break
    weights = {name: value for name, value in held.items() if isinstance(value, Tensor)}
    if not weights:
        raise InputError(f"{str(path)!r} holds no weights: give the published checkpoint.")
    return weights


def filled(
    make: Callable[[], Made], weights: Mapping[str, Tensor], path: Path, device: str, empty: bool = True
) -> Made:
    """Return the network of ``make()`` with these weights in float32, in evaluation mode.

    Args:
        make: makes the network.
        weights: by name.
        path: the checkpoint, for messages.
        device: where the network is to live.
        empty: whether the network is made without memory for its weights, which one with buffers of its own cannot be.

    Raises:
        InputError: if weights are missing, left over or of another shape; it names some.
    """
    try:
        with torch.device("meta" if empty else "cpu"), torch.random.fork_rng([]):  # What is drawn is not used.
            network = make()
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"the settings of the network of {str(path)!r} make none: {reason_of(error)}") from error
    wanted = network.state_dict()
    for what, names in (
        ("lacks", wanted.keys() - weights.keys()),
        ("has, besides the network's,", weights.keys() - wanted.keys()),
        (
            "has in another shape",
            {name for name in wanted if name in weights and wanted[name].shape != weights[name].shape},
        ),
    ):
        if names:
            some = ", ".join(sorted(names)[:NAMED]) + (", …" if len(names) > NAMED else "")
            raise InputError(
                f"{str(path)!r} {what} {len(names)} weights ({some}): it is of another network than the settings say."
            )
    network.load_state_dict({name: weights[name].to(_kind(weights[name])) for name in wanted}, assign=True)
    return network.to(device).eval().requires_grad_(False)


def _kind(weight: Tensor) -> torch.dtype:
    return torch.float32 if weight.is_floating_point() else weight.dtype


def _inert(module: str, name: str) -> type:
    """Return an empty class that goes by the name of another one."""
    return type(name, (), {"__module__": module})


_INERT = (_inert("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),)
"""Classes that Lightning's checkpoints name besides their weights."""

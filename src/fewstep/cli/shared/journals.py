"""The journal of a command: what decides its result, and a model whose predictions are kept in it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.cli.settings.options import ModelSettings
from fewstep.denoiser import Condition, DataPredictor
from fewstep.fingerprint import guidance_scale, model_fingerprint
from fewstep.guidance import Wrapped, thresholds
from fewstep.journal import Journal
from fewstep.models.model import Model

__all__ = ["Kept", "description_of", "digest"]


def description_of(command: str, settings: ModelSettings, model: Model, **more: Any) -> dict[str, Any]:
    """Return what decides a command's result: its settings but for ``--out``, its model, and ``more`` that it read."""
    values = {name: value for name, value in vars(settings).items() if name != "out"}
    return {
        "command": command,
        "settings": {name: None if value is None else str(value) for name, value in values.items()},
        "model_hash": model_fingerprint(model),
        "source": _source(settings.model),
        "guidance": guidance_scale(model.denoiser),
        "thresholds": thresholds(model.denoiser),
        **more,
    }


def _source(name: str) -> str:
    """Return the hash of the file of a model ``module:function``, whose weights may lie in it."""
    file = getattr(sys.modules.get(name.partition(":")[0]), "__file__", None) if ":" in name else None
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file and Path(file).is_file() else ""


class Kept(Wrapped):
    """A predictor whose predictions are kept in a journal, by all that it is called with."""

    def __init__(self, inner: DataPredictor, keep: Journal) -> None:
        super().__init__(inner)
        self.keep = keep

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition = None) -> Tensor:
        """Return D(x_t, t), of the journal if it is there."""
        (made,) = self.keep(digest(x_t, float(t), cond), lambda: (self.inner(x_t, t, cond),))
        return made.to(x_t.device)

    def check_cond(self, cond: Any, batch: int) -> Condition:
        """Return ``cond`` as the inner predictor takes it."""
        return self.inner.check_cond(cond, batch)


def digest(*values: Any) -> str:
    """Return a hash of tensors, arrays, and what they are nested in."""
    made = hashlib.blake2b(digest_size=16)

    def add(value: Any) -> None:
        if isinstance(value, Mapping):
            for name, one in value.items():
                made.update(f"{name}:".encode())
                add(one)
        elif isinstance(value, (list, tuple)):
            made.update(f"{len(value)}:".encode())
            for one in value:
                add(one)
        elif isinstance(value, (Tensor, np.ndarray)):
            tensor = torch.as_tensor(value).detach().cpu().contiguous()
            made.update(f"{tuple(tensor.shape)} {tensor.dtype};".encode())
            made.update(tensor.flatten().view(torch.uint8).numpy().data)
        else:
            made.update(f"{value!r};".encode())

    add(values)
    return made.hexdigest()

"""Memory that may be as large as there are noises: in temporary files, which the system keeps in memory or not."""

from __future__ import annotations

import tempfile

import numpy as np
import torch
from torch import Tensor

__all__ = ["scratch"]


def scratch(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return an uninitialised tensor on the host that lives in a temporary file, gone when it is."""
    numpy_dtype = np.float64 if dtype == torch.float64 else np.float32
    with tempfile.TemporaryFile() as file:
        return torch.from_numpy(np.memmap(file, dtype=numpy_dtype, mode="w+", shape=shape))

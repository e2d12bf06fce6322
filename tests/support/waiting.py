"""What finds out whether code waits for a device, with a GPU or without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])


class Watched(TorchDispatchMode):
    """Notes the operations that would wait for a device or cross to another one."""

    WAITING = ("_local_scalar_dense", "_unique2", "bincount", "equal", "masked_select", "nonzero", "unique_dim")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        result = function(*args, **(kwargs or {}))
        source = args[1] if name == "copy_" else args[0] if name == "_to_copy" else result
        crossing = isinstance(source, torch.Tensor) and source.device != getattr(result, "device", source.device)
        chosen = args[1] if name in ("index", "index_put", "index_put_") else ()
        by_mask = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in chosen)
        if name in self.WAITING or name == "lift_fresh" or crossing or by_mask:
            self.seen.append(name)
        return result


@contextmanager
def without_waiting(device: torch.device) -> Iterator[None]:
    """Fail where what is run inside waits: by its operations, and on a GPU by CUDA's own word."""
    mode = torch.cuda.get_sync_debug_mode() if device.type == "cuda" else 0
    with Watched() as watched:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode(mode)
    assert watched.seen == []

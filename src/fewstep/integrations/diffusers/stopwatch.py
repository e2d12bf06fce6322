"""The stopwatch of a pipeline's networks, which never waits for the device during a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["Stopwatch"]


class Stopwatch(AbstractContextManager["Stopwatch"]):
    """Counts and times the calls of modules while it is entered, in the thread that entered it.

    It measures between the first forward pre-hook and the last forward hook, so offloading and caches, which replace
    ``forward``, are inside. ``torch.compile`` calls a network's hooks outside its graph, and nothing is compiled
    again for them. On CUDA it records events, which are read when the result is asked for.

    Args:
        networks: modules by name; they are forgotten at the end.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self.networks = dict(networks)
        self.calls = dict.fromkeys(self.networks, 0)
        self.seconds = 0.0
        self._spans: list[tuple[_Mark, _Mark]] = []
        self._hooks: list[RemovableHandle] = []
        self._thread: int | None = None
        self._entered = 0.0

    def __enter__(self) -> Stopwatch:
        self._thread = threading.get_ident()
        self._hooks = [hook for name, module in self.networks.items() for hook in self._hooked(name, module)]
        self._entered = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._entered
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self.networks.clear()

    def _hooked(self, name: str, module: nn.Module) -> Iterator[RemovableHandle]:
        """Yield the handles of the hooks that time a module.

        A copy of the module made meanwhile keeps its hooks, and another thread's calls meet them too: they pass.
        """
        under_way: list[tuple[torch.device | None, _Mark]] = []

        def begin(called: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._is_timed(name, called):
                device = _device_of(called, (*args, *kwargs.values()))
                under_way.append((device, _mark(device)))

        def end(called: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if under_way and self._is_timed(name, called):
                device, begun = under_way.pop()
                self.calls[name] += 1
                self._spans.append((begun, _mark(device)))

        # Unless disabled, the hooks around a compiled network would be compiled as well.
        yield module.register_forward_pre_hook(torch.compiler.disable(begin), prepend=True, with_kwargs=True)
        yield module.register_forward_hook(torch.compiler.disable(end), always_call=True)

    def _is_timed(self, name: str, called: nn.Module) -> bool:
        return self.networks.get(name) is called and threading.get_ident() == self._thread

    @property
    def network_seconds(self) -> float:
        """The time in the networks; waits for the device if they ran on one."""
        return sum(_between(begin, end) for begin, end in self._spans)


class _Mark(NamedTuple):
    """A moment on the host, and on the GPU if the network computes on one."""

    seconds: float
    event: torch.cuda.Event | None


def _device_of(module: nn.Module, given: Sequence[Any]) -> torch.device | None:
    """Return where a call computes: on what GPU its tensors are, for offloading brings the network there meanwhile."""
    tensors = [value for value in given if isinstance(value, Tensor)]
    places = [tensor.device for tensor in (*tensors, *islice(module.parameters(), 1))]
    return next((place for place in places if place.type == "cuda"), None)


def _mark(device: torch.device | None) -> _Mark:
    event = None
    if device is not None:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))
    return _Mark(time.perf_counter(), event)


def _between(begin: _Mark, end: _Mark) -> float:
    if begin.event is None or end.event is None:  # both, or neither
        return end.seconds - begin.seconds
    end.event.synchronize()
    return begin.event.elapsed_time(end.event) / 1000.0

"""The stopwatch of a pipeline's networks, which never waits for the device during a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Stopwatch"]

COMPILED = "_compiled_call_impl"
PLAIN = "_call_impl"
"""What ``module(...)`` runs, hooks and all: the first where ``module.compile()`` was called, else the second."""

_running = threading.local()
_lock = threading.Lock()


class Stopwatch(AbstractContextManager["Stopwatch"]):
    """Counts and times the calls of modules while it is entered, in the thread that entered it.

    It wraps the outermost call, so it sees neither the inside of ``torch.compile`` nor of hooks and caches, and
    changes nothing there. On CUDA it records events, which are read when the result is asked for.

    Args:
        networks: modules by name; they are forgotten at the end.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self.networks = dict(networks)
        self.calls = dict.fromkeys(self.networks, 0)
        self.seconds = 0.0
        self._spans: list[tuple[_Mark, _Mark]] = []
        self._entered = 0.0

    def __enter__(self) -> Stopwatch:
        with _lock:
            for module in self.networks.values():
                _watch(module)
        _of_thread("watches").append(self)
        self._entered = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._entered
        _of_thread("watches").remove(self)
        with _lock:
            for module in self.networks.values():
                _unwatch(module)
        self.networks.clear()

    def count(self, module: nn.Module, begin: _Mark, end: _Mark) -> None:
        """Note a call of ``module``, if it is one of the networks."""
        for name, network in self.networks.items():
            if network is module:
                self.calls[name] += 1
                self._spans.append((begin, end))

    @property
    def network_seconds(self) -> float:
        """The time in the networks; waits for the device if they ran on one."""
        return sum(_between(begin, end) for begin, end in self._spans)


class _Watched:
    """A module's call while stopwatches are entered: it tells those of the calling thread, once.

    What ``module.compile()`` makes meanwhile keeps it, inside of what the next stopwatch wraps.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.name = PLAIN if vars(module).get(COMPILED) is None else COMPILED
        self.before = vars(module).get(self.name)
        self.call: Callable[..., Any] = getattr(module, self.name)
        self.watches = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        under_way = _of_thread("under_way")
        if any(module is self.module for module in under_way):
            return self.call(*args, **kwargs)
        device = _device_of(self.module, (*args, *kwargs.values()))
        begin = _mark(device)
        under_way.append(self.module)
        try:
            return self.call(*args, **kwargs)
        finally:
            under_way.pop()
            end = _mark(device)
            for watch in _of_thread("watches"):
                watch.count(self.module, begin, end)


class _Mark(NamedTuple):
    """A moment on the host, and on the GPU if the network computes on one."""

    seconds: float
    event: torch.cuda.Event | None


def _of_thread(name: str) -> list[Any]:
    """Return this thread's entered "watches", or the modules whose calls are "under_way"."""
    return vars(_running).setdefault(name, [])


def _watched(module: nn.Module) -> _Watched | None:
    calls = (vars(module).get(name) for name in (COMPILED, PLAIN))
    return next((call for call in calls if isinstance(call, _Watched)), None)


def _watch(module: nn.Module) -> None:
    watched = _watched(module)
    if watched is None:
        watched = _Watched(module)
        vars(module)[watched.name] = watched
    watched.watches += 1


def _unwatch(module: nn.Module) -> None:
    watched = _watched(module)
    if watched is None:
        return
    watched.watches -= 1
    if watched.watches == 0:
        vars(module).pop(watched.name)
        if watched.before is not None:
            vars(module)[watched.name] = watched.before


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

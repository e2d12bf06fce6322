"""How long the networks of a pipeline take, without a wait for the device while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import torch
from torch import nn

__all__ = ["Stopwatch"]

SLOT = "_compiled_call_impl"
"""Where a module keeps what ``module(...)`` runs in place of its own forward: outside of its hooks and its graph."""


class Stopwatch(AbstractContextManager["Stopwatch"]):
    """Counts and times the calls of modules while it is entered.

    It wraps the outermost call, so it sees neither the inside of ``torch.compile`` nor of hooks and caches, and
    changes nothing there. On CUDA it records events, which are read when the result is asked for.

    Args:
        networks: modules by name.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self.networks = dict(networks)
        self.calls = dict.fromkeys(self.networks, 0)
        self.seconds = 0.0
        self._marks: list[tuple[Any, Any]] = []
        self._entered = 0.0

    def __enter__(self) -> Stopwatch:
        self._before = {name: vars(module).get(SLOT) for name, module in self.networks.items()}
        for name, module in self.networks.items():
            vars(module)[SLOT] = self._timed(name, module, self._before[name] or module._call_impl)
        self._entered = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._entered
        for name, module in self.networks.items():
            vars(module).pop(SLOT)
            if self._before[name] is not None:
                vars(module)[SLOT] = self._before[name]

    def _timed(self, name: str, module: nn.Module, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            begin = _mark(module)
            try:
                return call(*args, **kwargs)
            finally:
                self._marks.append((begin, _mark(module)))

        return timed

    @property
    def network_seconds(self) -> float:
        """The time in the networks; waits for the device if they ran on one."""
        return sum(_between(begin, end) for begin, end in self._marks)


def _mark(module: nn.Module) -> Any:
    parameter = next(module.parameters(), None)
    if parameter is None or parameter.device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(parameter.device))
    return event


def _between(begin: Any, end: Any) -> float:
    if isinstance(begin, float):
        return end - begin
    end.synchronize()
    return begin.elapsed_time(end) / 1000.0

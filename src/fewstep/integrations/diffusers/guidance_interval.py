"""The guidance of a pipeline in an interval of noise levels: outside it one branch is evaluated."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.integrations.diffusers.known_pipelines import Branches
from fewstep.integrations.diffusers.run import ScheduledRun

__all__ = ["IntervalGuard"]

NOT_OF_SAMPLES = ("image_rotary_emb", "img_ids", "txt_ids", "rotary_emb")
"""Arguments of networks whose first dimension is no batch."""


COMPILED, PLAIN = "_compiled_call_impl", "_call_impl"
"""What ``module(...)`` runs, hooks and all: the first where ``module.compile()`` was called, else the second.

One of them is replaced on the module while a pipeline is called: a hook cannot leave out a call, and another
``forward`` would be traced into compiled networks, and compile them again.
"""

_lock = threading.Lock()


@dataclass
class _Seen:
    """What a network was given: whether its batch is both branches, and its last call outside the interval."""

    doubled: bool | None = None
    level: float | None = None
    state: Any = None
    made: Any = None


class IntervalGuard(AbstractContextManager["IntervalGuard"]):
    """Lets networks evaluate the condition's branch alone where σ/α is outside an interval, during a pipeline's call.

    A batch of both branches is halved, and the output repeated; the second of two calls on one state is given the
    output of the first. Whatever linear rule the pipeline has, it then makes the condition's prediction of two equal
    ones, exactly. It is heeded in the thread that entered it.

    Args:
        scheduler: the pipeline's, which knows σ/α.
        networks: those that are called.
        interval: (low, high): both branches where low < σ/α ≤ high.
        branches: how the pipeline evaluates them.
    """

    def __init__(
        self, scheduler: ScheduledRun, networks: Sequence[nn.Module], interval: tuple[float, float], branches: Branches
    ) -> None:
        self.scheduler, self.networks, self.interval, self.branches = scheduler, list(networks), interval, branches
        self.outside: set[float] = set()
        self.saved: set[float] = set()
        self.thread: int | None = None
        self._seen = {id(module): _Seen() for module in self.networks}

    def __enter__(self) -> IntervalGuard:
        self.thread = threading.get_ident()
        with _lock:
            for module in self.networks:
                _guarded(module).guards.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _lock:
            for module in self.networks:
                _guarded(module).leave(self)
        self._seen.clear()
        self.networks.clear()
        if error is None and self.outside and not self.saved:
            warnings.warn(
                "guidance_interval changed nothing: in this call the pipeline evaluates one branch (a guidance_scale "
                "of 1, or a network that is given the scale), or its branches were not found.",
                UserWarning,
                stacklevel=3,
            )

    def called(self, module: nn.Module, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the network's output, outside the interval that of one branch."""
        level = self.scheduler.level_ahead
        if self.interval[0] < level <= self.interval[1]:
            return call(*args, **kwargs)
        self.outside.add(level)
        seen = self._seen[id(module)]
        state: Any = args[0] if args else next(iter(kwargs.values()), None)
        if seen.doubled is None:
            seen.doubled = self.branches.batched and _is_doubled(state)
        if seen.doubled:
            half = _Half(len(state), self.branches.condition_first, isinstance(state, list))
            self.saved.add(level)
            return half.repeated(call(*half.of(args), **half.of(kwargs)))
        if seen.level == level and _same(seen.state, state):
            self.saved.add(level)
            return seen.made
        seen.level, seen.state = level, state
        seen.made = call(*args, **kwargs)
        return seen.made


class _Guarded:
    """A module's call while guards are entered."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.name = PLAIN if vars(module).get(COMPILED) is None else COMPILED
        self.before = vars(module).get(self.name)
        self.call: Callable[..., Any] = getattr(module, self.name)
        self.guards: list[IntervalGuard] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        here = threading.get_ident()
        guard = next((guard for guard in self.guards if guard.thread == here), None)
        return self.call(*args, **kwargs) if guard is None else guard.called(self.module, self.call, args, kwargs)

    def leave(self, guard: IntervalGuard) -> None:
        """Forget a guard; after the last one the module's call is what it was."""
        self.guards.remove(guard)
        if self.guards:
            return
        vars(self.module).pop(self.name)
        if self.before is not None:
            vars(self.module)[self.name] = self.before


def _guarded(module: nn.Module) -> _Guarded:
    """Return the module's guarded call, made where there is none."""
    for name in (COMPILED, PLAIN):
        found = vars(module).get(name)
        if isinstance(found, _Guarded):
            return found
    made = _Guarded(module)
    vars(module)[made.name] = made
    return made


def _is_doubled(state: Any) -> bool:
    """Return whether a batch is the same states twice."""
    if not isinstance(state, (Tensor, list)) or len(state) == 0 or len(state) % 2:
        return False
    half = len(state) // 2
    if isinstance(state, list):
        return all(map(_same, state[:half], state[half:]))
    return bool(torch.equal(state[:half], state[half:]))


def _same(one: Any, other: Any) -> bool:
    """Return whether two states are the same; the device is waited for only if they lie in different places."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if not isinstance(one, Tensor) or not isinstance(other, Tensor) or one.shape != other.shape:
        return False
    if one is other or (one.data_ptr() == other.data_ptr() and one.stride() == other.stride()):
        return True
    return bool(torch.equal(one, other))


@dataclass(frozen=True)
class _Half:
    """One half of a batch of ``batch`` in all that a network is given; ``listed`` if samples are lists' elements."""

    batch: int
    first: bool
    listed: bool

    def of(self, value: Any) -> Any:
        """Return the arguments of this half."""
        if isinstance(value, Tensor):
            return self._cut(value) if value.ndim and len(value) == self.batch else value
        if isinstance(value, Mapping):
            kept = {name: one if name in NOT_OF_SAMPLES else self.of(one) for name, one in value.items()}
            return kept if type(value) is dict else value
        if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
            if isinstance(value, list) and len(value) == self.batch and (self.listed or not self._tensors(value)):
                return self._cut(value)
            return type(value)(self.of(one) for one in value)
        return value

    def repeated(self, value: Any) -> Any:
        """Return an output twice, for both halves."""
        if isinstance(value, Tensor):
            return torch.cat([value, value]) if value.ndim and 2 * len(value) == self.batch else value
        if isinstance(value, Mapping):
            return type(value)(**{name: self.repeated(one) for name, one in value.items()})
        if isinstance(value, list) and self.listed and 2 * len(value) == self.batch:
            return value + value
        return type(value)(self.repeated(one) for one in value) if isinstance(value, (list, tuple)) else value

    def _tensors(self, value: list[Any]) -> bool:
        return any(isinstance(one, Tensor) for one in value)

    def _cut(self, value: Any) -> Any:
        half = self.batch // 2
        return value[:half] if self.first else value[half:]

"""The whole loop as one CUDA graph."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from fewstep.denoiser import DataPredictor, over_tensors
from fewstep.executor.tape import Draw, Tape
from fewstep.plan import Plan

__all__ = ["CapturedLoop", "captured"]

KEPT = 4
"""Graphs of one denoiser that are kept, those used last: each holds the memory of its network's calls."""

Kept = OrderedDict[Hashable, "CapturedLoop | str"]
_kept: WeakKeyDictionary[Any, Kept] = WeakKeyDictionary()
"""By denoiser and what else a graph depends on: the graph, or why there is none."""


class CapturedLoop:
    """A plan's loop over a denoiser, captured once, for states and conditions of one shape.

    State, condition and noise are buffers that are written before each replay. The graph reads the network's weights
    where they lie; so the denoiser has to outlive it.

    Raises:
        RuntimeError: if something in the loop cannot be captured, such as a wait for the device.
    """

    def __init__(self, plan: Plan, denoiser: Callable[..., Tensor], x_T: Tensor, cond: Any) -> None:
        self._cond = over_tensors(cond, torch.clone)
        self._tape = Tape(plan, x_T, self._cond)
        drawing = [move for move in self._tape.moves if move.noise is not None]
        self._intervals = [move.step for move in drawing]
        dtype = self._tape.state.dtype
        self._noise = torch.zeros(len(drawing), *x_T.shape, dtype=dtype, device=x_T.device)
        noise = dict(zip(self._intervals, self._noise.unbind(), strict=True))
        arguments = () if cond is None else (self._cond,)

        def draw(out: Tensor, interval: int) -> None:
            out.copy_(noise[interval])

        def run() -> None:
            self._tape.run(denoiser, arguments, draw)

        self._lock = Lock()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(x_T.device):
            aside, present = torch.cuda.Stream(), torch.cuda.current_stream()
            aside.wait_stream(present)
            with torch.cuda.stream(aside):
                run()  # libraries choose their kernels and make their workspaces
                self._tape.start(x_T)
                with _waiting_refused():
                    run()
            present.wait_stream(aside)
            try:
                with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                    run()
            finally:
                torch.cuda.set_stream(present)  # torch leaves its own where a capture fails

    def __call__(self, plan: Plan, x_T: Tensor, cond: Any, draw: Draw | None) -> Tensor:
        """Replay it from another state, under another condition, with other noise.

        Raises:
            NonFiniteStateError: if a state stops being finite.
        """
        with self._lock, torch.cuda.device(x_T.device):
            self._tape.start(x_T)
            _write(self._cond, cond)
            if draw is not None:
                for noise, interval in zip(self._noise, self._intervals, strict=True):
                    draw(noise, interval)
            self._graph.replay()
            self._tape.check_finite(plan)
            return self._tape.state.clone()


@contextmanager
def _waiting_refused() -> Iterator[None]:
    """Let CUDA refuse what would wait for the device, which spares a capture that breaks off."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def captured(
    plan: Plan, denoiser: Callable[..., Tensor], x_T: Tensor, cond: Any, interrupted: bool
) -> CapturedLoop | None:
    """Return the loop as a graph, a kept one where there is one; None, with a warning, where there can be none.

    Args:
        plan: its rows, folded.
        denoiser: as for ``execute``.
        x_T: a state.
        cond: a condition as the denoiser takes it, on the state's device.
        interrupted: whether a callback or a correction of the state has to be called in between.
    """
    reason = _hindrance(plan, denoiser, x_T, interrupted)
    if reason:
        _warn(reason)
        return None
    kept = _kept_for(denoiser)
    key = (plan.to_json(), tuple(x_T.shape), x_T.dtype, x_T.device, _kind(cond), _identity(denoiser))
    found = kept.get(key)
    if found is None:
        try:
            found = CapturedLoop(plan, denoiser, x_T, cond)
        except RuntimeError as error:
            found = f"the network cannot be captured ({str(error).splitlines()[0]})"
        kept[key] = found
        while len(kept) > KEPT:
            kept.popitem(last=False)
    kept.move_to_end(key)
    if isinstance(found, str):
        _warn(found)
        return None
    return found


def _hindrance(plan: Plan, denoiser: object, x_T: Tensor, interrupted: bool) -> str:
    """Return why the loop can be no graph, "" if nothing is known to stand against it."""
    if x_T.device.type != "cuda":
        return f"a CUDA graph needs a CUDA device, and x_T is on {x_T.device}"
    if interrupted:
        return "a callback or correct_x_t has to be called between the steps"
    if isinstance(denoiser, DataPredictor) and denoiser.remembers:
        return "the denoiser remembers its earlier calls"
    if plan.by_class:
        return "the plan's analytic predictions are chosen by class"
    return ""


def _warn(reason: str) -> None:
    warnings.warn(f"graph=True: {reason}; the steps are launched one by one.", stacklevel=4)


def _kept_for(denoiser: object) -> Kept:
    """Return the graphs of a denoiser; of one that cannot be referred to weakly none is kept."""
    try:
        return _kept.setdefault(denoiser, OrderedDict())
    except TypeError:
        return OrderedDict()


def _write(into: Any, cond: Any) -> None:
    """Copy the tensors of a condition over those of another one of its kind."""
    if isinstance(into, Mapping):
        for name, value in into.items():
            _write(value, cond[name])
    elif isinstance(into, Tensor):
        into.copy_(cond)


def _kind(cond: Any) -> Hashable:
    """Return shapes and types of a condition's tensors, and all else in it."""
    if isinstance(cond, Mapping):
        return tuple((name, _kind(value)) for name, value in cond.items())
    if isinstance(cond, Tensor):
        return tuple(cond.shape), cond.dtype
    return repr(cond)


PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device)


def _identity(part: Any) -> Hashable:
    """Return what tells whether a captured denoiser is the same still: its settings, hooks and places of weights."""
    if isinstance(part, PLAIN):
        return part
    if isinstance(part, Tensor):
        return part.data_ptr(), part.dtype, tuple(part.shape)
    if isinstance(part, nn.Module):
        places = tuple(tensor.data_ptr() for tensor in chain(part.parameters(), part.buffers()))
        return places, tuple(_settings(module) for module in part.modules())
    if isinstance(part, (list, tuple)):
        return tuple(_identity(value) for value in part)
    if isinstance(part, DataPredictor):
        return type(part), tuple((name, _identity(value)) for name, value in vars(part).items())
    return id(part)


def _settings(module: nn.Module) -> Hashable:
    """Return a module's own settings and the hooks on it; not whole numbers, which count things in some modules."""
    own = tuple((name, value) for name, value in vars(module).items() if isinstance(value, (bool, float, str)))
    return id(module), own, tuple(module._forward_hooks), tuple(module._forward_pre_hooks)

"""The pre-hooks: one on every module that takes skips in, and one on the network where ρ depends on its time."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fewstep.denoiser import network_device
from fewstep.errors import InputError
from fewstep.processes.base import on_host
from fewstep.skip.noise_level import FactorTable
from fewstep.skip.site import Argument, Site, parameters_of

__all__ = ["Scaling"]

TIMES = ("timestep", "timesteps", "timestep_ratio", "time", "t", "sigma", "noise_labels")
"""Names of a network's time argument; where none of these is found, the second argument is the time."""

_numbers = itertools.count()

Call = tuple[tuple[Any, ...], dict[str, Any]]


class _ScaleSkips:
    """Multiplies the skips that enter one module.

    The factors are tensors that live here (0-dimensional, on the host: kernels take them by value), or, where
    they change from call to call, in an attribute of the module. A replica of the network on another
    device thus has its own, and so has each thread that calls the network.
    """

    def __init__(self, sites: Sequence[tuple[Site, Argument]], factors: list[Tensor], attribute: str | None) -> None:
        self.sites, self.factors, self.attribute = sites, factors, attribute

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        held: Any = self.factors if self.attribute is None else getattr(module, self.attribute)
        factors: Sequence[Tensor] = held[threading.get_ident()] if isinstance(held, dict) else held
        for (site, argument), rho in zip(self.sites, factors, strict=True):
            args, kwargs = argument.put(args, kwargs, site.scaled(argument.get(args, kwargs), rho))
        return args, kwargs


class _SetFactors:
    """Looks the factors up at the network's time and hands them to the modules that scale."""

    def __init__(self, time: Argument, table: FactorTable, attribute: str, skips: Mapping[str, list[int]]) -> None:
        self.time, self.table, self.attribute = time, table, attribute
        self.paths = [(name.split("."), indices) for name, indices in skips.items()]

    def __call__(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        time = self.time.get(args, kwargs)
        if time is None:
            raise InputError(
                f"{type(network).__name__} was called without its time argument {self.time.name!r}, on which ρ depends."
            )
        time = torch.as_tensor(time).reshape(-1)
        factors = self.table(time)
        columns = (factors[0] if time.shape[0] == 1 else factors).unbind(-1)
        for path, indices in self.paths:
            module = network
            for name in path:
                module = getattr(module, name)
            chosen = tuple(columns[i] for i in indices)
            if torch.compiler.is_compiling():  # The graph has them in itself, whatever thread runs it.
                setattr(module, self.attribute, chosen)
            else:
                self._of_threads(module)[threading.get_ident()] = chosen

    def _of_threads(self, module: nn.Module) -> dict[int, tuple[Tensor, ...]]:
        """Return what the module's attribute holds: the factors of each thread's call."""
        held = vars(module).setdefault(self.attribute, {})
        if not isinstance(held, dict):  # A compiled graph wrote it.
            held = vars(module)[self.attribute] = {}
        return held


class Scaling:
    """The hooks of one tuned network, from their registration to ``remove``.

    Args:
        network: the network that is called.
        sites: where its skips enter.
        needed: the indices of the skips to scale.
        factors: ρ of every skip.
        table: ρ of every skip over the network's time, instead of ``factors``; or None.
    """

    @on_host
    def __init__(
        self,
        network: nn.Module,
        sites: Sequence[Site],
        needed: Sequence[int],
        factors: Sequence[float],
        table: FactorTable | None,
    ) -> None:
        self.needed = frozenset(needed)
        self.table = table
        self._network = network
        self._factors = {i: torch.tensor(factors[i], dtype=torch.float64) for i in needed}
        self._attribute = None if table is None else f"_skip_factors_{next(_numbers)}"
        self._by_module: dict[str, list[int]] = {}
        for i in sorted(needed):
            self._by_module.setdefault(sites[i].module, []).append(i)
        hooks: list[tuple[nn.Module, Any]] = []
        for name, indices in self._by_module.items():
            module = network.get_submodule(name)
            entries = [(sites[i], Argument.of(module, sites[i].argument)) for i in indices]
            hooks.append((module, _ScaleSkips(entries, [self._factors[i] for i in indices], self._attribute)))
        if table is not None and self._attribute is not None:
            place = network_device(network, None)
            if place.type != "meta":
                table.on(place)
            hooks.append((network, _SetFactors(_time_of(network), table, self._attribute, self._by_module)))
        self._handles: list[RemovableHandle] = []
        try:
            for module, hook in hooks:
                self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        except BaseException:  # An interrupt too: nobody has a handle yet.
            self.remove()
            raise

    def put(self, factors: Sequence[float], table: FactorTable | None) -> None:
        """Change the factors in place."""
        for i, factor in self._factors.items():
            factor.fill_(factors[i])
        if self.table is not None and table is not None:
            self.table.put(table)

    def remove(self) -> None:
        """Take every hook off, and what they left on the modules."""
        for handle in self._handles:
            handle.remove()
        if self._attribute is not None:
            for name in self._by_module:
                vars(self._network.get_submodule(name)).pop(self._attribute, None)


def _time_of(network: nn.Module) -> Argument:
    names = parameters_of(network)
    known = [name for name in names if name in TIMES]
    if not known and len(names) < 2:
        raise InputError(
            f"the forward of {type(network).__name__} has no time argument ({', '.join(names)}), so ρ "
            "cannot depend on σ: tune the network that is given the time."
        )
    return Argument.of(network, known[0] if known else 1)

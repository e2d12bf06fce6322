"""The site of a skip: one module, one argument of its forward, and the part of it that is the skip."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fewstep.checks import as_word
from fewstep.errors import InputError

__all__ = ["BRANCHES", "Argument", "Site", "Skip", "parameters_of"]

BRANCHES = ("block", "residual")


@dataclass(frozen=True)
class Site:
    """The place where one skip enters a module: what a pre-hook on that module has to scale.

    ==============================  ==========================================================================
    the module's argument is        write
    ==============================  ==========================================================================
    [hidden, skip], concatenated    ``Site("decoder.2", channels=64)``: the last 64 channels are the skip
    the skip itself                 ``Site("decoder.2", argument="skip")``
    a tuple of skips                ``Site("up.1", argument="residuals", entry=-1)``, one site for each entry
    ==============================  ==========================================================================

    A residual block adds its branch to its shortcut. ``Site("decoder.2", channels=64, branch="residual")`` scales the
    skip where it enters the branch alone, in front of the block's first normalisation; the shortcut has it as it is.

    Args:
        module: dotted name of the module, as in ``network.get_submodule(module)``.
        argument: the parameter of the module's ``forward`` that holds the skip, by name or by position
            (0 is the first after ``self``); it is found whether the network passes it by name or not.
        channels: the skip is the last ``channels`` entries along ``dim``; None: it is the whole tensor.
        entry: the skip's index where the argument is a tuple or list of tensors.
        dim: the dimension of the concatenation, 1 for images, -1 for tokens.
        branch: "block", or "residual" for the residual branch of ``module`` alone.

    Raises:
        InputError: if the branch is none of the two, or of a block whose skip is not concatenated.
    """

    module: str
    argument: str | int = 0
    channels: int | None = None
    entry: int | None = None
    dim: int = 1
    branch: str = "block"

    def __post_init__(self) -> None:
        """Check the branch."""
        as_word("branch", self.branch, BRANCHES)
        if self.branch == "residual" and self.channels is None:
            raise InputError("branch is 'residual' without channels: say how many channels are the skip's.")

    def scaled(self, value: Any, rho: Tensor) -> Any:
        """Return the argument ``value`` with its skip multiplied by ``rho``; ``value`` itself stays as it is.

        ``rho`` is 0-dimensional, or [batch]; where a skip's batch is k times as large (frames), each is used k times.
        """
        if self.entry is None:
            return self._scaled(value, rho)
        values = list(value)
        values[self.entry] = self._scaled(values[self.entry], rho)
        return tuple(values)

    def _scaled(self, tensor: Tensor | None, rho: Tensor) -> Tensor | None:
        if tensor is None:
            return None
        if rho.ndim:
            rho = rho.to(tensor).repeat_interleave(tensor.shape[0] // rho.shape[0])
            rho = rho.view(-1, *[1] * (tensor.ndim - 1))
        if self.channels is None:
            return tensor * rho
        result = tensor.clone()
        result.narrow(self.dim, result.shape[self.dim] - self.channels, self.channels).mul_(rho)
        return result


@dataclass(frozen=True)
class Skip:
    """One skip connection of a network.

    Attributes:
        name: where it is used: the module that works on [hidden, skip].
        depth: 0 for the outermost skip, rising towards the deepest.
        channels: its number of channels, where it is known.
        resolution: its height and width at the network's sample size, where they are known.
        site: where it enters.
    """

    name: str
    depth: int
    channels: int | None
    resolution: tuple[int, ...] | None
    site: Site


@dataclass(frozen=True)
class Argument:
    """An argument of a module's ``forward``, by position and by name, of which a call uses one."""

    position: int | None
    name: str | None

    @classmethod
    def of(cls, module: nn.Module, argument: str | int) -> Argument:
        """Return the argument of ``module`` that is named ``argument``, or stands at that position.

        Raises:
            InputError: if its ``forward`` has no such parameter.
        """
        names = parameters_of(module)
        if isinstance(argument, str):
            if argument in names or _is_open(module):
                return cls(names.index(argument) if argument in names else None, argument)
        elif argument < len(names) or _is_open(module):
            return cls(argument, names[argument] if argument < len(names) else None)
        raise InputError(
            f"the forward of {type(module).__name__} has no parameter {argument!r}: it takes "
            f"{', '.join(names) or 'none'}."
        )

    def get(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the argument's value in this call; None if it was left out."""
        if self.name is not None and self.name in kwargs:
            return kwargs[self.name]
        return args[self.position] if self.position is not None and self.position < len(args) else None

    def put(self, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the call with the argument's value replaced by ``value``."""
        if self.name is not None and self.name in kwargs:
            return args, {**kwargs, self.name: value}
        if self.position is None or self.position >= len(args):
            return args, kwargs
        return (*args[: self.position], value, *args[self.position + 1 :]), kwargs


def parameters_of(module: nn.Module) -> list[str]:
    """Return the names of the parameters of the module's ``forward`` that can be passed by position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(type(module).forward).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind in kinds][1:]


def _is_open(module: nn.Module) -> bool:
    """Return whether ``forward`` takes arguments that it does not name, or by name only."""
    open_kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return any(p.kind in open_kinds for p in inspect.signature(type(module).forward).parameters.values())

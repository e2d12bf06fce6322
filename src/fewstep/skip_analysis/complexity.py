"""The complexity of a network: how far its output changes with its input, over the noise level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fewstep import checks
from fewstep.denoiser import unpacked
from fewstep.errors import InputError
from fewstep.executor import NoiseSource
from fewstep.skip.find import module_in
from fewstep.skip.site import Argument
from fewstep.skip_analysis.real_data import RealData

__all__ = ["complexity"]

Call = tuple[tuple[Any, ...], dict[str, Any]]
SIGNS = 3
"""The stream of the seeds that the random signs are from."""


def complexity(data: RealData, levels: Sequence[float], *, differences: bool = False) -> Tensor:
    r"""Return ‖∂U/∂x‖/√d of the network U at the noisy samples, float64 [levels, n].

    The norm is Frobenius's, d the number of outputs: of the identity it is 1. It is estimated by one vector-Jacobian
    product with random signs v, for E‖vᵀ ∂U/∂x‖² = ‖∂U/∂x‖² (Hutchinson's estimate); a sample has the same v at every
    level and setting of the network. Of a network that cannot be differentiated, or with ``differences``, it is
    ‖U(x + hv) − U(x − hv)‖/2h, whose square has the same mean for h → 0; h is ε^{1/3} of x's root mean square, with ε
    the rounding of its type. x is what the network itself is given; where it is called more than once for a sample
    (guidance), the mean is taken. Batches need the memory of a training step.

    Source: The Surprising Effectiveness of Skip-Tuning in Diffusion Sampling (arXiv 2402.15170), E‖∇_x U(x)‖.

    Args:
        data: the samples.
        levels: noise levels σ/α.
        differences: take differences in any case.

    Raises:
        InputError: if the denoiser's network is unknown, or its calls are not of the samples.
    """
    checks.instance(RealData, "data", data, "give an fs.skip_analysis.RealData")
    levels, differences = checks.levels("levels", levels), checks.flag("differences", differences)
    network = module_in(data.denoiser)
    found = torch.zeros(len(levels), len(data), dtype=torch.float64)
    for i, level in enumerate(levels):
        make = partial(_measured, data, level, network, differences)
        (found[i],) = data.kept(f"complexity/{level!r}", data.batches, make)
    return found


def _measured(data: RealData, level: float, network: nn.Module, differences: bool) -> tuple[Tensor]:
    """Return the complexity at each sample, float64 [n]."""
    assert data.seeds is not None
    calls, found, start = _Calls(network), list[Tensor](), 0
    with calls:
        for x_0, _ in data.predictions(level):
            seeds = data.seeds[start : start + len(x_0)]
            norms = [_norm(network, calls.x, call, seeds, differences) for call in calls.taken()]
            calls.taken()  # Those that have just been made.
            if not norms:
                raise InputError(f"the denoiser did not call its {type(network).__name__}: give one that does.")
            found.append(torch.stack(norms).mean(0).cpu())
            start += len(x_0)
    return (torch.cat(found),)


class _Calls:
    """A pre-hook that notes with what a network is called."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.x = network, Argument.of(network, 0)
        self.noted = list[Call]()

    def __enter__(self) -> None:
        self.handle = self.network.register_forward_pre_hook(self._note, with_kwargs=True)

    def __exit__(self, *_: object) -> None:
        self.handle.remove()

    def _note(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # A copy, for the network may write into its input.
        self.noted.append(self.x.put(args, kwargs, self.x.get(args, kwargs).clone()))

    def taken(self) -> list[Call]:
        """Return the calls since the last time."""
        noted, self.noted = self.noted, []
        return noted


def _norm(network: nn.Module, place: Argument, call: Call, seeds: Sequence[int], differences: bool) -> Tensor:
    """Return ‖∂U/∂x‖/√d at a call's samples, float64 [n]."""
    x = place.get(*call)
    if len(x) % len(seeds):
        raise InputError(
            f"the network is called with {len(x)} inputs for {len(seeds)} samples: they must be multiples."
        )

    def output(at: Tensor) -> Tensor:
        changed, named = place.put(*call, at.clone())
        made = unpacked(network(*changed, **named))
        return made[:, : x.shape[1]]  # Without a learned variance.

    def signs(like: Tensor) -> Tensor:
        drawn = torch.empty(len(seeds), *like.shape[1:], device=like.device)
        NoiseSource(len(seeds), like.device, seeds=seeds, stream=SIGNS).fill(drawn)
        return torch.where(drawn < 0, -1.0, 1.0).to(like.dtype).repeat(len(x) // len(seeds), *[1] * (like.ndim - 1))

    change = None if differences else _product(output, x, signs)
    if change is None:
        with torch.no_grad():
            step = float(x.double().square().mean().sqrt()) * torch.finfo(x.dtype).eps ** (1 / 3)
            moved = step * signs(x)
            change = (output(x + moved).double() - output(x - moved).double()) / (2.0 * step)
    # Both estimate the whole norm; inputs and outputs are as many.
    norms = change.double().flatten(1).norm(dim=1) / change[0].numel() ** 0.5
    return norms.view(-1, len(seeds)).mean(0)


def _product(output: Callable[[Tensor], Tensor], x: Tensor, signs: Callable[[Tensor], Tensor]) -> Tensor | None:
    """Return vᵀ ∂U/∂x; None if U cannot be differentiated."""
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        try:
            made = output(point)
            return torch.autograd.grad((made * signs(made)).sum(), point)[0]
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError:  # A part without a derivative.
            return None

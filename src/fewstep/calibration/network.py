"""The network on many noises: called in blocks of bounded size, counted, and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from fewstep.calibration.scratch import scratch
from fewstep.denoiser import checked_prediction, over_tensors
from fewstep.errors import InputError, NonFiniteStateError

__all__ = ["CountedNetwork", "checked_predictor"]


class CountedNetwork:
    """D of chosen noises at states kept on the host; ``calls`` counts network calls, one a sample.

    Args:
        denoiser: an ``fs.Denoiser`` or a callable (x_t, t) → x0, called with a third argument if ``cond`` is given.
        cond: the conditions of all noises: None, a tensor [num, …], or keywords, nested ones too, of which tensors
            [num, …] are split; anything else goes to every block as it is.
        num: how many noises there are conditions of; those of further noises come round again.
        batch_size: samples in a call.
        device: where it is called.
    """

    def __init__(
        self,
        denoiser: Callable[..., Tensor],
        cond: Any,
        num: int,
        batch_size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.denoiser, self.cond, self.num, self.batch_size, self.device = denoiser, cond, num, batch_size, device
        self.calls = 0

    def blocks(self, which: Tensor) -> Iterator[Tensor]:
        """Cut the noise numbers ``which`` into blocks of one call each."""
        return iter(which.split(self.batch_size))

    def bound(self, which: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Return (x, t) → D for the noises ``which``, on the device: what ``fs.execute`` runs.

        A condition that it is called with is not looked at: it has its own.
        """
        arguments = () if self.cond is None else (over_tensors(self.cond, lambda value: self._part(value, which)),)

        def call(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
            self.calls += len(which)
            return checked_prediction(self.denoiser(x, t, *arguments), x)

        return call

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor, which: Tensor) -> Tensor:
        """Return D for the noises ``which`` at the states ``x`` [len(which), …], both on the host.

        Raises:
            NonFiniteStateError: if a prediction is not finite.
        """
        out = scratch(tuple(x.shape), x.dtype)
        for place in torch.arange(len(which)).split(self.batch_size):
            made = self.bound(which[place])(x[place].to(self.device), t.to(self.device))
            out[place] = made.to(device="cpu", dtype=x.dtype)
            if not bool(torch.isfinite(out[place]).all()):
                raise NonFiniteStateError(
                    f"the network returned a value that is not finite at t = {float(t):.6g}: nothing can be fitted to "
                    "it. Try the network in float32 or bfloat16, or a smaller guidance scale."
                )
        return out

    def _part(self, value: Tensor, which: Tensor) -> Tensor:
        split = value.ndim and value.shape[0] == self.num
        return (value[which.to(value.device) % self.num] if split else value).to(self.device)


def checked_predictor(denoiser: object, process: object) -> None:
    """Raise ``InputError`` unless ``denoiser`` can be called and is of ``process``, as far as it says."""
    if not callable(denoiser):
        raise InputError(f"denoiser is {denoiser!r}: give an fs.Denoiser or a callable (x_t, t) -> x0.")
    of_denoiser = getattr(denoiser, "process", None)
    if of_denoiser is not None and of_denoiser != process:
        raise InputError(
            f"the grid is of {process!r}, the denoiser of {of_denoiser!r}: make the grid with the denoiser's process."
        )

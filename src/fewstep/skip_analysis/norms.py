"""The norm ratios: each skip beside the hidden features that it joins, over the noise level."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fewstep import checks
from fewstep.errors import InputError
from fewstep.skip import Site, Skip, find
from fewstep.skip.find import module_in
from fewstep.skip.site import Argument
from fewstep.skip_analysis.real_data import RealData

__all__ = ["NormRatios", "norm_ratios"]


@dataclass(frozen=True)
class NormRatios:
    """The norm ratios of a network.

    Attributes:
        skips: the network's skips, deepest first.
        levels: the noise levels σ/α.
        mean: the mean of the ratio over the samples, float64 [levels, skips].
        deviation: its standard deviation.
    """

    skips: tuple[Skip, ...]
    levels: tuple[float, ...]
    mean: Tensor
    deviation: Tensor


def norm_ratios(data: RealData, levels: Sequence[float], sites: Sequence[Site] | None = None) -> NormRatios:
    r"""Return ‖s‖/‖h‖ of every skip s and the hidden features h beside it, on real samples with noise.

    The norms are Euclidean, over all channels and pixels of a sample. Skips that are tuned meanwhile are measured as
    they are scaled. Source: The Surprising Effectiveness of Skip-Tuning (arXiv 2402.15170), section 4.

    Args:
        data: the samples.
        levels: noise levels σ/α.
        sites: where the skips of an unknown network are, as in ``fs.skip.find``.

    Raises:
        InputError: if the network has no skips that are known, or the hidden features beside one are not.
    """
    checks.instance(RealData, "data", data, "give an fs.skip_analysis.RealData")
    levels = checks.levels("levels", levels)
    network = module_in(data.denoiser)
    skips = tuple(find(network, sites))
    taps = [_Tap(network, skip) for skip in skips]
    mean, deviation = (torch.zeros(len(levels), len(skips), dtype=torch.float64) for _ in range(2))
    with ExitStack() as stack:
        for tap in taps:
            stack.callback(tap.module.register_forward_pre_hook(tap, with_kwargs=True).remove)
        for i, level in enumerate(levels):
            mean[i], deviation[i] = data.kept(f"ratios/{level!r}", data.batches, partial(_measured, data, level, taps))
    return NormRatios(skips, tuple(levels), mean, deviation)


def _measured(data: RealData, level: float, taps: Sequence[_Tap]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each skip's ratio at a level, float64 [skips]."""
    for _ in data.predictions(level):
        pass
    ratios = [tap.taken() for tap in taps]
    return torch.stack([r.mean() for r in ratios]), torch.stack([r.std(unbiased=False) for r in ratios])


class _Tap:
    """A pre-hook that notes ‖skip‖/‖hidden‖ of every sample and changes nothing."""

    def __init__(self, network: nn.Module, skip: Skip) -> None:
        self.module = network.get_submodule(skip.name)
        self.skip, self.ratios = skip, list[Tensor]()
        joins = skip.site.module == skip.name
        self.apart = joins and skip.site.channels is None and skip.site.entry is None
        # Where a block takes its skips as a tuple, the module inside it takes [hidden, skip] as its first argument.
        self.joined = Argument.of(self.module, skip.site.argument if joins else 0)
        self.hidden = Argument.of(self.module, 0)
        self.dim = skip.site.dim
        if not self.apart and (skip.channels is None or (joins and skip.site.entry is not None)):
            raise InputError(
                f"the hidden features beside the skip {skip.name!r} are not known: describe it as the module that "
                "takes [hidden, skip], Site('decoder.0', channels=64), or takes the two as arguments."
            )

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = self.joined.get(args, kwargs)
        if self.apart:
            hidden, skip = self.hidden.get(args, kwargs), value
        else:
            width = value.shape[self.dim] - (self.skip.channels or 0)
            hidden, skip = value.tensor_split([width], dim=self.dim)
        if skip is not None:
            norms = [x.double().flatten(1).norm(dim=1) for x in (skip, hidden)]
            self.ratios.append(norms[0] / norms[1])

    def taken(self) -> Tensor:
        """Return the ratios noted since the last call, float64 [n]."""
        if not self.ratios:
            raise InputError(f"the network did not use its skip {self.skip.name!r}: leave it out of sites.")
        ratios, self.ratios = torch.cat(self.ratios).cpu(), []
        return ratios

"""Finding the skip connections of a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from fewstep.denoiser import DataPredictor
from fewstep.errors import InputError
from fewstep.skip import diffusers_networks, research_networks, transformers
from fewstep.skip.site import Site, Skip

__all__ = ["bare", "find", "innermost"]

FAMILIES = (
    research_networks.edm,
    research_networks.guided_diffusion,
    research_networks.latent_diffusion,
    diffusers_networks.residual_tuples,
    diffusers_networks.kandinsky3,
    diffusers_networks.stable_cascade,
    transformers.skip_argument,
)
"""Each returns a module's own skips, deepest first, or none if the module is of another family."""


def find(network: nn.Module | DataPredictor, sites: Sequence[Site] | None = None) -> list[Skip]:
    """Return the skip connections of ``network``, deepest first.

    Args:
        network: the network, or a wrapper (EDM's preconditioning, ``torch.compile``, ``DataParallel``,
            ``Denoiser``, guidance) with one inside.
        sites: where the skips are, deepest first, for a network that is not known here.

    Raises:
        InputError: if it has no skips that are known or described, or several networks inside have some.
    """
    root, _ = bare(network)
    if sites is not None:
        return [_described(root, site, len(sites) - 1 - i) for i, site in enumerate(sites)]
    found = list(_search(root, ""))
    if not found:
        raise InputError(
            f"{type(root).__name__} has no skip connections that fewstep knows. A plain transformer "
            "(DiT) has none; if this network has, say where: sites=[fs.skip.Site('decoder.0', "
            "channels=64), …], deepest first."
        )
    if len(found) > 1:
        inside = ", ".join(prefix.rstrip(".") for prefix, _ in found)
        raise InputError(f"{type(root).__name__} has several networks with skips inside ({inside}): give one of them.")
    prefix, skips = found[0]
    return [
        replace(
            skip,
            name=prefix + skip.name,
            depth=len(skips) - 1 - i,
            site=replace(skip.site, module=prefix + skip.site.module),
        )
        for i, skip in enumerate(skips)
    ]


def bare(network: Any) -> tuple[nn.Module, bool]:
    """Return the network without denoiser, ``torch.compile`` and parallel wrappers; and whether it is compiled.

    Raises:
        InputError: if there is no ``torch.nn.Module`` in it.
    """
    network = innermost(network)
    if isinstance(network, DataPredictor):
        network = getattr(network, "network", network)
    compiled = False
    while isinstance(network, nn.Module):
        inner = network._modules.get("_orig_mod")
        compiled = compiled or inner is not None
        if inner is None and isinstance(network, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = network.module
        if inner is None:
            break
        network = inner
    if not isinstance(network, nn.Module):
        raise InputError(f"the network is a {type(network).__name__}: give a torch.nn.Module, such as pipe.unet.")
    return network, compiled or any(_is_compiled(module) for module in network.modules())


def innermost(network: Any) -> Any:
    """Return the denoiser inside guidance and thresholding; what is no denoiser is handed on."""
    while isinstance(network, DataPredictor) and hasattr(network, "inner"):
        network = network.inner
    return network


def _is_compiled(module: nn.Module) -> bool:
    return "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None


def _search(module: nn.Module, prefix: str) -> Iterator[tuple[str, list[Skip]]]:
    for family in FAMILIES:
        skips = family(module)
        if skips:
            yield prefix, skips
            return
    for name, child in module.named_children():
        yield from _search(child, f"{prefix}{name}.")


def _described(root: nn.Module, site: Site, depth: int) -> Skip:
    try:
        root.get_submodule(site.module)
    except AttributeError as error:
        raise InputError(
            f"{type(root).__name__} has no module {site.module!r} ({error}): network.named_modules() lists the names."
        ) from error
    return Skip(site.module, depth, site.channels, None, site)

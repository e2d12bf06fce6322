"""The search for the skip connections of a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from fewstep.checks import as_word, shown
from fewstep.denoiser import DataPredictor
from fewstep.errors import InputError
from fewstep.skip import diffusers_networks, research_networks, transformers
from fewstep.skip.site import BRANCHES, Site, Skip
from fewstep.unwrap import network_of

__all__ = ["find", "module_in"]

FAMILIES = (
    research_networks.edm,
    research_networks.guided_diffusion,
    research_networks.latent_diffusion,
    diffusers_networks.residual_tuples,
    diffusers_networks.kandinsky3,
    diffusers_networks.stable_cascade,
    transformers.skip_argument,
)
"""Each returns a module's skips, deepest first, or none if the module is of another family."""


FIRST = ("norm1", "norm0", "in_layers.0")
"""The first layer of a residual block's branch: diffusers' and latent-diffusion's, EDM's, and guided-diffusion's."""


def find(
    network: nn.Module | DataPredictor, sites: Sequence[Site] | None = None, *, branch: str = "block"
) -> list[Skip]:
    """Return the skip connections of ``network``, deepest first.

    Args:
        network: the network, or a wrapper (EDM's preconditioning, ``torch.compile``, ``DataParallel``,
            ``Denoiser``, guidance) with one inside.
        sites: where the skips are, deepest first, for a network that is not known here.
        branch: "residual" for the sites in which skips enter the residual branch of their block, past its shortcut.

    Raises:
        InputError: if it has no skips that are known or described, several networks inside have some, or a block has no
            residual branch that is known.
    """
    as_word("branch", branch, BRANCHES)
    root = module_in(network)
    if sites is not None:
        known = isinstance(sites, Sequence) and len(sites) > 0 and all(isinstance(site, Site) for site in sites)
        if not known:
            raise InputError(f"sites are {shown(sites)}: give a list of fs.skip.Site, deepest first.")
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
    placed = [
        replace(
            skip,
            name=prefix + skip.name,
            depth=len(skips) - 1 - i,
            site=replace(skip.site, module=prefix + skip.site.module),
        )
        for i, skip in enumerate(skips)
    ]
    return placed if branch == "block" else [replace(skip, site=_on_residual(root, skip)) for skip in placed]


def module_in(outer: Any) -> nn.Module:
    """Return the network without denoiser, ``torch.compile`` and parallel wrappers.

    Raises:
        InputError: if there is no ``torch.nn.Module`` in it.
    """
    network = network_of(outer)
    if not isinstance(network, nn.Module):
        raise InputError(f"the network is a {type(network).__name__}: give a torch.nn.Module, such as pipe.unet.")
    return network


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
    skip = Skip(site.module, depth, site.channels, None, site)
    return skip if site.branch == "block" else replace(skip, site=_on_residual(root, skip))


def _on_residual(root: nn.Module, skip: Skip) -> Site:
    """Return where a skip enters the residual branch of its block.

    Raises:
        InputError: if the block has no first layer that is known, or the skip's channels are not.
    """
    layers = dict(root.get_submodule(skip.name).named_modules())
    first = next((name for name in FIRST if name in layers), None)
    if first is None or skip.channels is None:
        raise InputError(
            f"{skip.name} is a {type(layers['']).__name__}, whose residual branch is not known: give the site of its "
            "first layer, fs.skip.Site('….norm1', channels=…)."
        )
    return Site(f"{skip.name}.{first}", channels=skip.channels, dim=skip.site.dim)

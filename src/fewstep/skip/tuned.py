"""Skip-Tuning: a network with its skip connections scaled, until the handle is removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

import torch
from torch import Tensor, nn

from fewstep.checks import shown
from fewstep.denoiser import DataPredictor, Denoiser
from fewstep.errors import InputError
from fewstep.processes import Process
from fewstep.skip.find import find, module_in
from fewstep.skip.hooks import Scaling
from fewstep.skip.noise_level import FactorTable
from fewstep.skip.profile import Profile
from fewstep.skip.site import Site
from fewstep.unwrap import innermost_denoiser, is_compiled

__all__ = ["Tuned", "tuned"]


def tuned(
    network: nn.Module | DataPredictor,
    bottom: float = 0.8,
    top: float = 1.0,
    *,
    rho: float | Sequence[float] | None = None,
    sigma_window: tuple[float | None, float | None] | None = None,
    ramp: float = 0.0,
    sigma_weight: Callable[[float], float] | Sequence[tuple[float, float]] | None = None,
    profile: Profile | None = None,
    process: Process | None = None,
    network_time: Callable[[Tensor], Tensor] | None = None,
    sites: Sequence[Site] | None = None,
) -> Tuned:
    """Scale the skip connections of ``network`` from now on; undo it by ``.remove()`` or at the end of a ``with``.

    ``with tuned(network, 0.7): …`` and ``handle = tuned(network, 0.7); …; handle.remove()`` do the same. Nested
    calls multiply their factors. The weights are not touched, and with the last handle removed the network
    is what it was. A skip with ρ = 1 gets no hook and costs nothing. Several threads may call the network at once.

    Under ``torch.compile``: tune first, compile after, and change ρ with ``handle.set``; nothing is compiled
    again. A network that is compiled already is recompiled, with all others, at its next call
    (``torch.compiler.reset``), for its graph has no place for the hooks; but from the plain network alone it
    cannot be seen that a compiled wrapper of it exists elsewhere: give the wrapper.

    Args:
        network: the network (a diffusers pipeline's ``pipe.unet``), a wrapper with one inside, or a
            ``Denoiser``, guided or not, which also says ``process`` and ``network_time``.
        bottom: ρ of the deepest skip; see ``Profile`` for this and the next five.
        top: ρ of the outermost skip.
        rho: one number for all skips, or one for each, deepest first.
        sigma_window: (low, high) in σ/α, outside of which the skips are left alone.
        ramp: width of the window's soft edges, in log(σ/α).
        sigma_weight: how far ρ is applied, over σ/α.
        profile: all of this as one object, such as ``load("profile.json")``, instead of the settings above.
        process: needed where ρ depends on σ: the process whose times ``network`` is called with.
        network_time: the map from that process's t to the time argument of ``network``;
            ``process.network_time`` by default.
        sites: where the skips of an unknown network are, deepest first; ``find`` knows the usual networks.

    Raises:
        InputError: if there are no skips, a setting is wrong, or ρ depends on σ and ``process`` is missing.
    """
    given = Profile(bottom, top, rho, sigma_window, ramp, sigma_weight)  # type: ignore[arg-type]
    if profile is not None and given != Profile():
        raise InputError(
            "profile is given together with settings that it holds: give one or the other, or "
            "dataclasses.replace(profile, …)."
        )
    for name, value, kind in (("profile", profile, Profile), ("process", process, Process)):
        if value is not None and not isinstance(value, kind):
            raise InputError(f"{name} is {shown(value)}: give a {kind.__name__}, or leave it out.")
    network = innermost_denoiser(network)
    if isinstance(network, Denoiser):
        process = network.process if process is None else process
        network_time = _time_of(network) if network_time is None else network_time
    return Tuned(network, given if profile is None else profile, process, network_time, sites)


class Tuned:
    """A network whose skips are scaled until ``remove()``: what ``tuned`` returns.

    Attributes:
        skips: the network's skips, deepest first.
        profile: the profile in use.
        active: whether the skips are scaled now.
    """

    def __init__(
        self,
        network: nn.Module | DataPredictor,
        profile: Profile,
        process: Process | None,
        network_time: Callable[[Tensor], Tensor] | None,
        sites: Sequence[Site] | None,
    ) -> None:
        self.skips = find(network, sites)
        self._network = network
        self._process, self._network_time = process, network_time
        self._scaling: Scaling | None = None
        self.active = True
        self.set(profile)

    @torch.inference_mode(False)
    def set(self, profile: Profile) -> None:
        """Change to ``profile``, from the next network call on.

        A compiled network is not compiled again, unless a skip is scaled that was not before, or ρ starts or
        stops depending on σ, or does so through another number of points.

        Raises:
            InputError: as ``tuned``; or if the handle was removed. The old profile then stays.
        """
        if not self.active:
            raise InputError("this handle was removed: call tuned again.")
        factors = profile.factors(len(self.skips))
        table = self._table(profile, factors)
        needed = [i for i, factor in enumerate(factors) if factor != 1.0]
        now = self._scaling
        if now is not None and now.needed.issuperset(needed) and (now.table is None) == (table is None):
            now.put(factors, table)
        else:
            network, compiled = module_in(self._network), is_compiled(self._network)
            new = Scaling(network, [skip.site for skip in self.skips], needed, factors, table) if needed else None
            self._unhook()
            self._scaling = new
            if compiled and new is not None:
                torch.compiler.reset()
        self.profile = profile

    def remove(self) -> None:
        """Give the network back as it was; a second call does nothing."""
        self._unhook()
        self.active = False

    def _unhook(self) -> None:
        if self._scaling is not None:
            self._scaling.remove()
            self._scaling = None

    def _table(self, profile: Profile, factors: Sequence[float]) -> FactorTable | None:
        if not profile.over_sigma:
            return None
        if self._process is None:
            raise InputError(
                "ρ depends on σ, so the network's process must be known: give process=, such as "
                "fewstep.processes.EDM(), or a Denoiser in place of the network."
            )
        return FactorTable(profile, factors, self._process, self._network_time or self._process.network_time)

    def __enter__(self) -> Tuned:
        if not self.active:
            raise InputError("this handle was removed: call tuned again.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def _time_of(denoiser: Denoiser) -> Callable[[Tensor], Tensor]:
    """Return the map from t to what the denoiser feeds its network."""
    if denoiser.prediction == "edm":
        return lambda t: -0.25 * denoiser.process.half_logsnr(t)
    return denoiser.network_time

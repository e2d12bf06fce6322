"""The diagnosis: all measurements of Skip-Tuning on a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from fewstep import checks
from fewstep.errors import InputError
from fewstep.journal import within
from fewstep.skip import Profile, find, tuned
from fewstep.skip_analysis.complexity import complexity
from fewstep.skip_analysis.inversion import NoiseStatistics, invert, noise_statistics
from fewstep.skip_analysis.losses import BANDS, Change, FeatureMap, denoising_losses
from fewstep.skip_analysis.norms import NormRatios, norm_ratios
from fewstep.skip_analysis.real_data import RealData, noise_levels

__all__ = ["PARTS", "Diagnosis", "calls", "checked_parts", "diagnose"]

DEFAULT = ("ratios", "losses", "inversion")
PARTS = (*DEFAULT, "complexity")
SHARES = (0.25, 0.5, 0.75, 1.0)
"""How far a profile is applied for the complexity over ρ: every ρ is 1 + share·(its own − 1)."""


@dataclass(frozen=True)
class Diagnosis:
    """The measurements; None for those that were not asked for.

    Attributes:
        ratios: ‖skip‖/‖hidden‖ of the untuned network.
        pixel: the denoising loss, untuned and tuned.
        feature: the same in features.
        levels: the noise levels of these.
        inversion: the noise that real samples are inverted to, untuned and tuned.
        bands: ``pixel`` by Haar's bands, whose losses sum to it.
        complexity: that of the network, untuned and tuned, by the ρ that is furthest from 1, as the profile is applied
            by a quarter, a half, three quarters and in full.
    """

    levels: tuple[float, ...]
    ratios: NormRatios | None = None
    pixel: Change | None = None
    feature: Change | None = None
    inversion: tuple[NoiseStatistics, NoiseStatistics] | None = None
    bands: dict[str, Change] | None = None
    complexity: dict[float, Change] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, JSON-able."""
        found: dict[str, Any] = {"levels": list(self.levels)}
        if self.ratios is not None:
            found["ratios"] = [
                {
                    "skip": skip.name,
                    "depth": skip.depth,
                    "channels": skip.channels,
                    "resolution": skip.resolution,
                    "mean": self.ratios.mean[:, i].tolist(),
                    "deviation": self.ratios.deviation[:, i].tolist(),
                }
                for i, skip in enumerate(self.ratios.skips)
            ]
        for name, change in (("pixel_loss", self.pixel), ("feature_loss", self.feature)):
            if change is not None:
                found[name] = change.to_dict()
        if self.bands is not None:
            found["band_losses"] = {name: change.to_dict() for name, change in self.bands.items()}
        if self.complexity is not None:
            found["complexity"] = [{"rho": rho, **change.to_dict()} for rho, change in self.complexity.items()]
        if self.inversion is not None:
            found["inversion"] = {name: asdict(x) for name, x in zip(("untuned", "tuned"), self.inversion, strict=True)}
        return found


def diagnose(
    data: RealData,
    profile: Profile,
    features: FeatureMap | None = None,
    *,
    decode: Callable[[Tensor], Tensor] | None = None,
    levels: Sequence[float] | None = None,
    inversion_steps: int = 40,
    parts: Sequence[str] = DEFAULT,
) -> Diagnosis:
    """Measure a network with and without Skip-Tuning; it is left as it was.

    Args:
        data: real samples.
        profile: the tuning.
        features: for the loss in features; see ``denoising_losses`` for this and ``decode``.
        decode: samples to images, for models that work on latents.
        levels: noise levels σ/α; ``noise_levels`` of the process by default.
        inversion_steps: network calls from a sample to noise.
        parts: some of "ratios", "losses", "inversion" and "complexity".

    Raises:
        InputError: if a part is unknown, or as these do.
    """
    wanted = checked_parts(parts)
    checks.instance(RealData, "data", data, "give an fs.skip_analysis.RealData")
    checks.instance(Profile, "profile", profile, "give an fs.skip.Profile")
    checks.check_callback("features", features)
    checks.check_callback("decode", decode)
    inversion_steps = checks.whole("inversion_steps", inversion_steps)
    levels = noise_levels(data.denoiser.process) if levels is None else checks.levels("levels", levels)
    untuned_data, tuned_data = (replace(data, keep=within(data.keep, name)) for name in ("untuned", "tuned"))
    ratios = norm_ratios(untuned_data, levels) if "ratios" in wanted else None
    pixel = feature = inversion = bands = None
    if "losses" in wanted:
        before = denoising_losses(untuned_data, levels, features, decode)
        with tuned(data.denoiser, profile=profile):
            after = denoising_losses(tuned_data, levels, features, decode)
        pixel = Change.of(before.pixel, after.pixel)
        if before.feature is not None and after.feature is not None:
            feature = Change.of(before.feature, after.feature)
        if before.bands is not None and after.bands is not None:
            bands = {name: Change.of(before.bands[i], after.bands[i]) for i, name in enumerate(BANDS)}
    if "inversion" in wanted:
        untuned = noise_statistics(invert(untuned_data, inversion_steps))
        with tuned(data.denoiser, profile=profile):
            inversion = untuned, noise_statistics(invert(tuned_data, inversion_steps))
    grown = _complexities(data, profile, levels) if "complexity" in wanted else None
    return Diagnosis(levels, ratios, pixel, feature, inversion, bands, grown)


def _complexities(data: RealData, profile: Profile, levels: Sequence[float]) -> dict[float, Change]:
    """Return the change of the complexity by each of ``SHARES`` of the profile, by the ρ that is furthest from 1."""
    factors = profile.factors(len(find(data.denoiser)))
    furthest = max(factors, key=lambda rho: abs(rho - 1.0))
    kept = lambda name: replace(data, keep=within(data.keep, name))  # noqa: E731
    before, found = complexity(kept("untuned"), levels), {}
    for share in SHARES:
        rho = tuple(1.0 + share * (rho - 1.0) for rho in factors)
        with tuned(data.denoiser, profile=replace(profile, rho=rho)):
            after = complexity(kept(f"tuned by {share}"), levels)
        found[1.0 + share * (furthest - 1.0)] = Change.of(before, after)
    return found


def calls(data: RealData, levels: int, inversion_steps: int, parts: Sequence[str]) -> int:
    """Return how many network calls ``diagnose`` makes: how often it calls ``data.progress``."""
    each = {
        "ratios": levels,
        "losses": 2 * levels,
        "inversion": 2 * inversion_steps,
        "complexity": (1 + len(SHARES)) * levels,
    }
    return data.batches * sum(each[name] for name in parts)


def checked_parts(parts: Sequence[str]) -> tuple[str, ...]:
    """Return the parts, if each is one of ``PARTS``.

    Raises:
        InputError: with the nearest match.
    """
    if isinstance(parts, str) or not isinstance(parts, Sequence):
        raise InputError(f"parts is {checks.shown(parts)}: give a list of {', '.join(PARTS)}.")
    for name in parts:
        checks.as_word("diagnostic", name, PARTS)
    if not parts:
        raise InputError(f"no diagnostic is given: choose among {', '.join(PARTS)}.")
    return tuple(dict.fromkeys(parts))

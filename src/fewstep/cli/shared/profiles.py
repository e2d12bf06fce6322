"""``--skip``: a skip profile on the model of a command."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from typing import Any

from fewstep import skip
from fewstep.denoiser import DataPredictor
from fewstep.fingerprint import described, fingerprint
from fewstep.skip import Profile, Tuned

__all__ = ["origin", "settings_of", "tuned_by"]


def tuned_by(profile: Profile, denoiser: DataPredictor) -> Tuned:
    """Scale the model's skips by a profile; warn if it is of another model.

    Raises:
        InputError: if the profile is of a network with another number of skips, or the model has none.
    """
    handle = skip.tuned(denoiser, profile=profile)
    model = profile.origin.get("model")
    searched = model.get("fingerprint") if isinstance(model, dict) else None
    if searched and searched != fingerprint(denoiser):
        warnings.warn(
            "the skip profile was searched on another model (the fingerprint of weights and "
            "configuration differs): it may make samples worse; run fewstep skip search for this one.",
            UserWarning,
            stacklevel=2,
        )
    return handle


def settings_of(profile: Profile) -> dict[str, Any]:
    """Return what decides on samples, JSON-able: the profile without its origin."""
    return json.loads(replace(profile, origin={}).to_json())


def origin(name: str, denoiser: DataPredictor) -> dict[str, Any]:
    """Return what a profile says of the model that it was searched on, and where that one's skips are."""
    return {
        "model": {"name": name, **described(denoiser)},
        "sites": [{"skip": site.name, "depth": site.depth, "channels": site.channels} for site in skip.find(denoiser)],
    }

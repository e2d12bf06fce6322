"""``--skip``: a skip profile on the model of a command."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from typing import Any

from fewstep import skip
from fewstep.denoiser import DataPredictor
from fewstep.fingerprint import described, fingerprint
from fewstep.recipe import Recipe
from fewstep.skip import Profile, Tuned, for_calls, named
from fewstep.skip.calls import AUTO

__all__ = ["at_calls", "of_recipe", "origin", "read", "rho", "settings_of", "tuned_by"]


def read(option: str | None) -> Profile | str | None:
    """Return the profile of ``--skip``; "auto", whose ρ is by the number of calls, and None are returned as they are.

    Raises:
        InputError: if it is no profile.
    """
    return option if option in (None, AUTO) else named(option)


def of_recipe(recipe: Recipe) -> Profile | None:
    """Return the profile that a recipe holds, if any.

    Raises:
        InputError: if it is no profile.
    """
    return None if recipe.skip is None else Profile.from_json(json.dumps(recipe.skip))


def at_calls(skip: Profile | str | None, calls: int) -> Profile | None:
    """Return the profile of what ``read`` returned for a sampler of ``calls`` network calls."""
    return for_calls(calls) if isinstance(skip, str) else skip


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


def rho(profile: Profile) -> str:
    """Return ρ in a few words, deepest skip first: "0.675 … 1"."""
    of = profile.rho if profile.rho is not None else (profile.bottom, profile.top)
    words = (
        f"{of:.4g}" if isinstance(of, float) else (" … " if profile.rho is None else " ").join(f"{x:.4g}" for x in of)
    )
    return f"{words}, by the noise" if profile.over_sigma else words


def settings_of(profile: Profile) -> dict[str, Any]:
    """Return what decides on samples, JSON-able: the profile without its origin."""
    return json.loads(replace(profile, origin={}).to_json())


def origin(name: str, denoiser: DataPredictor) -> dict[str, Any]:
    """Return what a profile says of the model that it was searched on, and where that one's skips are."""
    return {
        "model": {"name": name, **described(denoiser)},
        "sites": [{"skip": site.name, "depth": site.depth, "channels": site.channels} for site in skip.find(denoiser)],
    }

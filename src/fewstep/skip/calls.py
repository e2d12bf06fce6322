"""ρ by the number of network calls."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from fewstep.checks import shown, whole
from fewstep.errors import InputError
from fewstep.skip.profile import Profile, load

__all__ = ["AUTO", "for_calls"]

AUTO = "auto"
"""The word for ρ by the rule."""
PAPER = ((9, 0.675), (10, 0.78), (19, 0.78), (39, 0.85))
"""(calls, ρ of the deepest skip): the paper has 0.65 to 0.70 at 9 calls, of which this is the middle."""
MOST = 1_000_000
"""The most network calls."""


def for_calls(calls: int, searched: Sequence[Profile | str | os.PathLike[str]] = ()) -> Profile:
    """Return the profile for a number of network calls, linear in it between those that are known, constant beyond.

    Without ``searched`` ρ of the deepest skip is the paper's for EDM on ImageNet-64: 0.65 to 0.70 at 9 calls (here
    0.675), 0.78 at 10 to 19, 0.85 at 39; the outermost skip has ρ = 1. It is of models that are not distilled. The
    profile's ``origin["source"]`` says where ρ comes from.

    Source: The Surprising Effectiveness of Skip-Tuning in Diffusion Sampling (arXiv 2402.15170).

    Args:
        calls: the number of network calls.
        searched: profiles of ``fewstep skip search``, or their files, of one model at several numbers of calls, in
            place of the paper's.

    Raises:
        InputError: if ``calls`` is no whole number from 1 to a million, or ``searched`` are no such profiles.
    """
    calls = whole("calls", calls, 1, MOST)
    if not isinstance(searched, Sequence) or isinstance(searched, (str, bytes)):
        raise InputError(f"searched is {shown(searched)}: give a list of profiles, or of their files.")
    profiles = [profile if isinstance(profile, Profile) else load(profile) for profile in searched]
    if not profiles:
        at, bottoms = zip(*PAPER, strict=True)
        source = {"source": f"the rule of arXiv 2402.15170 at {calls} calls"}
        return Profile(float(np.interp(calls, at, bottoms)), origin=source)
    points = sorted((_calls_of(profile), profile.bottom, profile.top) for profile in profiles)
    known = [point[0] for point in points]
    if len(set(known)) < len(known):
        raise InputError(f"searched has profiles of {known} calls: give one for each number.")
    if len({(profile.skips, _weights_of(profile)) for profile in profiles}) > 1:
        raise InputError("searched has profiles of several models: give those of one.")
    bottom, top = (float(np.interp(calls, known, [point[i] for point in points])) for i in (1, 2))
    words = ", ".join(str(number) for number in known)
    source = {"source": f"searches at {words} calls, at {calls} calls"}
    return Profile(bottom, top, skips=profiles[0].skips, origin=source)


def _calls_of(profile: Profile) -> int:
    """Return the number of calls that a profile was searched at.

    Raises:
        InputError: if it does not say so, or ρ is more than two numbers.
    """
    calls = profile.origin.get("calls")
    if not isinstance(calls, int) or isinstance(calls, bool):
        raise InputError(f"{profile} does not say at how many calls it was searched: run fewstep skip search again.")
    if profile.rho is not None or profile.over_sigma:
        raise InputError(f"{profile} is more than bottom and top: only these two are interpolated.")
    return whole("calls of a searched profile", calls, 1, MOST)


def _weights_of(profile: Profile) -> str | None:
    """Return the fingerprint of the model that a profile was searched on, where it says so."""
    model = profile.origin.get("model")
    return str(model.get("fingerprint")) if isinstance(model, dict) else None

"""The skip profile: ρ over the depth, its weight over the noise level, and its JSON."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ConfigDict

from fewstep.checks import as_real, shown, whole
from fewstep.errors import InputError
from fewstep.processes.spec import build, parse
from fewstep.storage import Plain, Schema, Stored, json_text, parsed
from fewstep.time_grid import TimeGrid

__all__ = ["Profile", "load", "named"]

FORMAT = "fewstep-skip/1"
WIDEST = 20.0
"""The widest ramp, in natural logarithms: e^20 is further than from the smallest noise level to the largest."""
SAMPLED = tuple(10.0 ** (k / 64) for k in range(-256, 257))
"""The σ/α at which a weight that is a function is sampled: 1e-4 … 1e4, 3.6 % apart."""


@dataclass(frozen=True)
class Profile(Stored):
    r"""The factor ρ of every skip, over depth and noise level.

    With d the depth (0 outermost, n − 1 deepest), ρ_d = top + (bottom − top)·d/(n − 1); at noise level
    s = σ/α the skip is multiplied by 1 + w(s)·(ρ_d − 1), where w is 1 unless one of ``sigma_window`` and
    ``sigma_weight`` is given.

    Source: The Surprising Effectiveness of Skip-Tuning in Diffusion Sampling (arXiv 2402.15170).

    Args:
        bottom: ρ of the deepest skip.
        top: ρ of the outermost skip.
        rho: instead of the two, one number for all skips, or one for each, deepest first.
        sigma_window: (low, high) in σ/α, either None for open: w is 1 within, both ends included, 0 outside.
        ramp: the width, in natural logarithms of σ/α, over which w falls to 0 outside of the window.
        sigma_weight: w as points (σ/α, weight), linear in log(σ/α) between them and constant beyond; or a
            function of σ/α, which is sampled at 513 points from 1e-4 to 1e4.
        skips: how many skips the profile was made for; a network with another number is refused. None: any.
        origin: how it was found (the model, the settings, all points of a search), JSON-able; nothing is
            computed from it, and profiles that differ in it alone are equal.

    Raises:
        InputError: if a ρ is negative or not finite, the window is empty, settings exclude each other, or
            ``skips`` is no whole number above 0.
    """

    bottom: float = 0.8
    top: float = 1.0
    rho: float | tuple[float, ...] | None = None
    sigma_window: tuple[float | None, float | None] | None = None
    ramp: float = 0.0
    sigma_weight: tuple[tuple[float, float], ...] | Callable[[float], float] | None = None
    skips: int | None = None
    origin: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
        put("bottom", _factor("bottom", self.bottom))
        put("top", _factor("top", self.top))
        if isinstance(self.rho, Sequence):
            if not self.rho:
                raise InputError("rho is empty: give one number, or one for each skip.")
            put("rho", tuple(_factor(f"rho[{i}]", value) for i, value in enumerate(self.rho)))
        elif self.rho is not None:
            put("rho", _factor("rho", self.rho))
        if self.sigma_window is not None:
            put("sigma_window", _window(self.sigma_window))
        put("ramp", as_real(self.ramp))
        if self.ramp is None or not 0 <= self.ramp <= WIDEST or (self.ramp and self.sigma_window is None):
            raise InputError(f"ramp is {self.ramp!r}: give a number from 0 to {WIDEST:g}, with a sigma_window.")
        if self.sigma_weight is not None:
            if self.sigma_window is not None:
                raise InputError("sigma_window and sigma_weight are both given: leave one out.")
            weight = self.sigma_weight
            put("sigma_weight", _points(_sampled(weight) if callable(weight) else weight))
        if self.skips is not None:
            put("skips", whole("skips", self.skips))
        if not isinstance(self.origin, Mapping):
            raise InputError(f"origin is {type(self.origin).__name__}: give a mapping, or leave it out.")

    @classmethod
    def per_step(cls, grid: TimeGrid, bottoms: Sequence[float]) -> Profile:
        """Return the profile whose ρ of the deepest skip is ``bottoms[i]`` in step i of ``grid``, with top = 1.

        Step i is the network call at ``grid.times[i]``; half way to the next one, in log(σ/α), the value changes.

        Raises:
            InputError: if there are not as many values as steps.
        """
        if not isinstance(grid, TimeGrid):
            raise InputError(f"grid is {shown(grid)}: give a TimeGrid.")
        if not isinstance(bottoms, Sequence) or len(bottoms) != grid.steps:
            raise InputError(f"bottoms are {shown(bottoms)} for {grid.steps} steps: give one number for each.")
        strongest = max((_factor("bottoms", value) for value in bottoms), key=lambda value: abs(1 - value))
        weights = [(1 - value) / (1 - strongest) if strongest != 1 else 0.0 for value in bottoms]
        logs = [min(max(-x, -30.0), 30.0) for x in grid.half_logsnr[: grid.steps].tolist()]
        points = [(logs[0], weights[0])]
        for before, after, old, new in zip(logs, logs[1:], weights, weights[1:], strict=False):
            middle, edge = 0.5 * (before + after), 1e-5 * (before - after)
            points += [(middle + edge, old), (middle - edge, new)]
        return cls(bottom=strongest, sigma_weight=tuple((math.exp(x), w) for x, w in reversed(points)))

    @property
    def over_sigma(self) -> bool:
        """Whether ρ depends on the noise level."""
        return self.sigma_window is not None or self.sigma_weight is not None

    def factors(self, count: int) -> list[float]:
        """Return ρ of ``count`` skips, deepest first.

        Raises:
            InputError: if ``rho`` is a list of another length, or the profile was made for another number.
        """
        if self.skips not in (None, count):
            raise InputError(
                f"the profile was made for a network of {self.skips} skips, this one has {count}: search one for "
                "this network, or dataclasses.replace(profile, skips=None) to use it anyway."
            )
        if isinstance(self.rho, tuple):
            if len(self.rho) != count:
                raise InputError(
                    f"rho has {len(self.rho)} values, the network {count} skips: give one for each "
                    "skip, deepest first; fs.skip.find lists them."
                )
            return list(self.rho)
        if self.rho is not None:
            return [float(self.rho)] * count
        step = (self.top - self.bottom) / max(count - 1, 1)
        return [self.bottom + step * i for i in range(count - 1)] + [self.top if count > 1 else self.bottom]

    def to_json(self) -> str:
        """Return the profile as JSON; ``from_json`` gives the same profile back."""
        data = {"format": FORMAT, **asdict(self)}
        unsaid = [name for name in ("skips", "origin") if not data[name]]
        return json_text({name: value for name, value in data.items() if name not in unsaid})

    @classmethod
    def from_json(cls, text: str) -> Profile:
        """Return the profile that ``to_json`` wrote.

        Raises:
            InputError: if the text is not such a profile, or a setting is unknown or wrong.
        """
        stored = parsed(text, {FORMAT: _StoredProfile}, "the skip profile")
        return cls(**stored.model_dump(exclude={"format"}, exclude_unset=True))


class _StoredProfile(Schema):
    model_config = ConfigDict(extra="forbid")

    format: str
    bottom: float = 0.8
    top: float = 1.0
    rho: float | list[float] | None = None
    sigma_window: tuple[float | None, float | None] | None = None
    ramp: float = 0.0
    sigma_weight: list[tuple[float, float]] | None = None
    skips: int | None = None
    origin: Plain = {}


def named(spec: float | str | os.PathLike[str] | Profile) -> Profile:
    """Return the profile of ``spec``: ρ of the deepest skip, settings as "bottom=0.7,top=0.95", a file, or a profile.

    Raises:
        InputError: if it is none of them, a setting is unknown, or there is no such file.
    """
    if isinstance(spec, Profile):
        return spec
    number = as_real(spec)
    if number is not None:
        return Profile(number)
    if isinstance(spec, str) and spec != "auto" and re.split(r"[\s:=,]", spec.strip(), maxsplit=1)[0].lower() == "auto":
        raise InputError(
            f"skip is {shown(spec)}: write auto alone, without settings, for ρ by the number of calls; or ρ of the "
            "deepest skip, as 0.8, settings as 'bottom=0.7,top=0.95', or a .json file."
        )
    if isinstance(spec, os.PathLike) or (isinstance(spec, str) and spec.endswith(".json")):
        return load(spec)
    if isinstance(spec, str) and "=" in spec:
        _, settings = parse(spec if spec.startswith("profile:") else f"profile:{spec}")
        return build("skip", "profile", {"profile": Profile}, settings)
    try:
        number = float(spec) if isinstance(spec, str) else None
    except ValueError:
        number = None
    if spec == "auto":
        raise InputError(
            "skip 'auto' is by the number of calls: give fs.skip.for_calls(8) or fs.enable(pipe, steps=8, …)."
        )
    if number is None:
        raise InputError(
            f"skip is {shown(spec)}: give ρ of the deepest skip, as 0.8, settings as 'bottom=0.7,top=0.95', a .json "
            "file, or fs.skip.Profile(…)."
        )
    return Profile(number)


def load(path: str | os.PathLike[str]) -> Profile:
    """Return the skip profile in the JSON file ``path``.

    Raises:
        InputError: if there is no such file, or it is no skip profile.
    """
    return Profile.load(path)


def _factor(name: str, value: Any) -> float:
    number = as_real(value)
    if number is None or not (math.isfinite(number) and number >= 0):
        raise InputError(f"{name} is {value!r}: a skip's factor is a number of at least 0; 1 leaves it as it is.")
    return number


def _window(window: Any) -> tuple[float | None, float | None]:
    bounds = list(window) if isinstance(window, Sequence) and len(window) == 2 else [None, 0.0]
    low, high = (
        as_real(default if value is None else value) for value, default in zip(bounds, (0.0, math.inf), strict=True)
    )
    if low is None or high is None or not 0 <= low < high:
        raise InputError(f"sigma_window is {window!r}: give (low, high) in σ/α with 0 ≤ low < high, or None for open.")
    return low or None, None if math.isinf(high) else high


def _sampled(weight: Callable[[float], float]) -> list[tuple[float, float]]:
    try:
        return [(s, weight(s)) for s in SAMPLED]
    except TypeError as error:
        raise InputError(f"sigma_weight is {shown(weight)}, which is not a function of σ/α: {error}.") from error


def _points(points: Any) -> tuple[tuple[float, float], ...]:
    try:
        pairs = tuple((float(s), float(w)) for s, w in points)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        pairs = ()
    rising = all(a[0] < b[0] for a, b in zip(pairs, pairs[1:], strict=False))
    if not pairs or not rising or pairs[0][0] <= 0 or not all(math.isfinite(x) for pair in pairs for x in pair):
        raise InputError(
            "sigma_weight must be points (σ/α, weight), with σ/α rising and above 0, all of them finite; "
            f"it is {str(points)[:80]}."
        )
    return pairs

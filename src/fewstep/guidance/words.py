"""Guidance written as one word: ``3:interval=0.2:2,rule=apg``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fewstep.checks import as_real, real, shown
from fewstep.errors import InputError, unknown_name
from fewstep.guidance.guided import Interval, checked_interval
from fewstep.guidance.rules import Rule, rule_named
from fewstep.processes.spec import parse

__all__ = ["GuidanceWords", "guidance_named"]


@dataclass(frozen=True)
class GuidanceWords:
    """A scale and its settings, as ``ClassifierFree`` takes them."""

    scale: float
    interval: Interval = None
    rule: Rule | None = None
    rescale: float = 0.0

    @property
    def settings(self) -> dict[str, Any]:
        """The keywords of ``ClassifierFree`` besides the scale."""
        return {"interval": self.interval, "rule": self.rule, "rescale": self.rescale}


def guidance_named(spec: float | str) -> GuidanceWords:
    """Return the guidance of a number, "3", or of a number with settings, "3:interval=0.2:2,rule=apg,eta=0.5".

    Settings: ``interval`` (σ/α, low:high), ``rescale`` (φ), ``rule`` (linear, apg, zero-star) and the rule's own: eta,
    threshold, momentum; zero_above.

    Raises:
        InputError: if the scale is no number, or a setting is unknown or out of its range.
    """
    number = as_real(spec)
    if number is not None:
        return GuidanceWords(number)
    if not isinstance(spec, str):
        raise InputError(f"guidance_scale is {shown(spec)}: give a number, such as 3, or '3:interval=0.2:2'.")
    scale, settings = parse(spec)
    try:
        chosen = float(scale)
    except ValueError as error:
        raise InputError(
            f"the guidance is {spec!r}: write a number, such as 3, with settings if wanted, as 3:interval=0.2:2."
        ) from error
    interval, rescale = settings.pop("interval", None), real("rescale", settings.pop("rescale", 0.0), 0.0, 1.0)
    rule = settings.pop("rule", None)
    if rule is None and settings:
        raise unknown_name("setting of guidance without a rule=", next(iter(settings)), ("interval", "rescale", "rule"))
    made = None if rule is None else rule_named(str(rule), **settings)
    return GuidanceWords(chosen, _interval(interval), made, rescale)


def _interval(value: Any) -> Interval:
    if not isinstance(value, str):
        return checked_interval(value)
    try:
        return checked_interval([float(end) for end in value.split(":")])
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"interval={value} is not a range of σ/α: write interval=0.2:2.") from error

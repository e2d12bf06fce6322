"""Processes by name: what JSON files and the command line speak of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewstep.errors import InputError, unknown_name
from fewstep.processes.base import Process
from fewstep.processes.edm import EDM
from fewstep.processes.flow import RectifiedFlow
from fewstep.processes.vp import VPCosine, VPDiscrete, VPLinear

__all__ = ["NAMES", "from_dict", "named"]

NAMES: dict[str, type[Process]] = {
    "edm": EDM,
    "flow": RectifiedFlow,
    "vp-cosine": VPCosine,
    "vp-discrete": VPDiscrete,
    "vp-linear": VPLinear,
}


def named(name: str, **settings: Any) -> Process:
    """Return the process called ``name`` with ``settings``; "vp-discrete" is DDPM's linear one unless told.

    Raises:
        InputError: if there is no such process, or a setting is not one of its own.
    """
    if name not in NAMES:
        raise unknown_name("process", name, NAMES)
    make = VPDiscrete.from_betas if name == "vp-discrete" and "alphas_cumprod" not in settings else NAMES[name]
    try:
        return make(**settings)
    except TypeError as error:
        raise InputError(f"process {name!r} does not take these settings: {error}.") from error


def from_dict(data: Mapping[str, Any]) -> Process:
    """Return the process that ``Process.to_dict`` described.

    Raises:
        InputError: if ``data`` has no known name or its settings do not fit.
    """
    if not isinstance(data, Mapping) or "name" not in data:
        raise InputError(f"a process is described as {{'name': …, settings}}, not {data!r}.")
    return named(**data)

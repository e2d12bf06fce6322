"""Processes by name, as JSON files and the command line write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fewstep.errors import InputError
from fewstep.processes.base import Process
from fewstep.processes.edm import EDM
from fewstep.processes.flow import RectifiedFlow
from fewstep.processes.spec import build, parse
from fewstep.processes.vp import VPCosine, VPDiscrete, VPLinear

__all__ = ["NAMES", "from_dict", "named"]

NAMES: dict[str, Callable[..., Process]] = {
    "edm": EDM,
    "flow": RectifiedFlow,
    "vp-cosine": VPCosine,
    "vp-discrete": VPDiscrete.from_betas,
    "vp-linear": VPLinear,
}


def named(spec: str) -> Process:
    """Return the process of ``spec``: a name, with settings if needed, as "flow:shift=3".

    "vp-discrete" is DDPM's linear schedule of 1000 steps; its settings are those of ``VPDiscrete.from_betas``.

    Raises:
        InputError: if there is no such process, or a setting is unknown.
    """
    name, settings = parse(spec)
    return build("process", name, NAMES, settings)


def from_dict(data: Mapping[str, Any]) -> Process:
    """Return the process that ``Process.to_dict`` described.

    Raises:
        InputError: if ``data`` has no known name or its settings do not fit.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("name"), str):
        raise InputError(f"a process is described as {{'name': …, settings}}, not {data!r}.")
    settings = {key: value for key, value in data.items() if key != "name"}
    return build("process", data["name"], {**NAMES, "vp-discrete": VPDiscrete}, settings)

"""The solver that a scheduler's settings describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from fewstep.errors import InputError
from fewstep.solvers import NAMES, DPMSolverPP, SASolver, Solver, UniPC, named, tau

__all__ = ["solver_of"]


def solver_of(config: Mapping[str, Any]) -> Solver:
    """Return the solver of the settings ``solver``, ``solver_order``, ``corrector_order`` and their like.

    A solver of whatever name takes those of the settings that are its arguments; written with settings, as
    "unipc:order=3", it takes these alone.

    Raises:
        InputError: if there is no such solver, or a setting is out of its range.
    """
    spec = config["solver"]
    if not isinstance(spec, str):
        raise InputError(f"solver is {spec!r}: give a name and its settings, as solver='unipc', solver_order=2.")
    if ":" in spec or spec not in NAMES:
        return named(spec)
    return READERS[spec](config) if spec in READERS else _read(NAMES[spec], config)


def _unipc(config: Mapping[str, Any]) -> Solver:
    order, nodes = config["solver_order"], config["corrector_order"]
    if nodes not in (None, 0, order + 1):
        raise InputError(f"corrector_order={nodes}: UniPC's corrector has solver_order + 1 = {order + 1} nodes, or 0.")
    return UniPC(order, config["solver_type"], nodes != 0, config["lower_order_final"])


def _dpmpp(config: Mapping[str, Any]) -> Solver:
    exact = config["solver_type"] == "exact"
    return DPMSolverPP(config["solver_order"], "exact" if exact else "published", config["lower_order_final"])


def _sa(config: Mapping[str, Any]) -> Solver:
    order, nodes = config["solver_order"], config["corrector_order"]
    return SASolver(
        predictor_order=order,
        corrector_order=order if nodes is None else nodes,
        tau=_tau(config),
        few_step=True,
        lower_order_final=config["lower_order_final"],
    )


def _read(made: type[Solver], config: Mapping[str, Any]) -> Solver:
    settings = {**config, "order": config["solver_order"], "tau": _tau(config)}
    return made(**{name: settings[name] for name in signature(made).parameters if name in settings})


def _tau(config: Mapping[str, Any]) -> tau.Tau:
    window = config["tau_window"]
    return tau.as_tau(config["tau"]) if window is None else tau.window(config["tau"], *window)


READERS: dict[str, Callable[[Mapping[str, Any]], Solver]] = {"dpmpp": _dpmpp, "sa": _sa, "unipc": _unipc}
"""Solvers whose settings are called otherwise in diffusers."""

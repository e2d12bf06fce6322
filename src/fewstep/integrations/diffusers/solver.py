"""The solver that a scheduler's settings describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fewstep.errors import InputError, unknown_name
from fewstep.solvers import DDIM, DEIS, DPMSolverPP, Euler, SASolver, Solver, UniPC, tau

__all__ = ["SOLVERS", "solver_of"]


def solver_of(config: Mapping[str, Any]) -> Solver:
    """Return the solver of the settings ``solver``, ``solver_order``, ``corrector_order`` and their like.

    Raises:
        InputError: if there is no such solver, or a setting is out of its range.
    """
    if not isinstance(config["solver"], str):
        raise InputError(
            f"solver is {config['solver']!r}: give a name and its settings, as solver='unipc', solver_order=2."
        )
    if config["solver"] not in SOLVERS:
        raise unknown_name("solver", config["solver"], SOLVERS)
    return SOLVERS[config["solver"]](config)


def _unipc(config: Mapping[str, Any]) -> Solver:
    order, nodes = config["solver_order"], config["corrector_order"]
    if nodes not in (None, 0, order + 1):
        raise InputError(f"corrector_order={nodes}: UniPC's corrector has solver_order + 1 = {order + 1} nodes, or 0.")
    return UniPC(order, config["solver_type"], nodes != 0, config["lower_order_final"])


def _dpmpp(config: Mapping[str, Any]) -> Solver:
    exact = config["solver_type"] == "exact"
    return DPMSolverPP(config["solver_order"], "exact" if exact else "published", config["lower_order_final"])


def _sa(config: Mapping[str, Any]) -> Solver:
    order, nodes, window = config["solver_order"], config["corrector_order"], config["tau_window"]
    return SASolver(
        predictor_order=order,
        corrector_order=order if nodes is None else nodes,
        tau=tau.constant(config["tau"]) if window is None else tau.window(config["tau"], *window),
        few_step=True,
        lower_order_final=config["lower_order_final"],
    )


def _deis(config: Mapping[str, Any]) -> Solver:
    return DEIS(config["solver_order"], config["lower_order_final"])


SOLVERS: dict[str, Callable[[Mapping[str, Any]], Solver]] = {
    "ddim": lambda config: DDIM(config["eta"]),
    "deis": _deis,
    "dpmpp": _dpmpp,
    "euler": lambda config: Euler(),
    "sa": _sa,
    "unipc": _unipc,
}
"""The names of solvers; each takes the scheduler's settings."""

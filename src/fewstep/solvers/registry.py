"""Solvers by name."""

from __future__ import annotations

from fewstep.errors import InputError
from fewstep.processes.spec import build, parse
from fewstep.solvers import tau as taus
from fewstep.solvers.base import NAMES, Solver

__all__ = ["named"]


def named(spec: str | Solver) -> Solver:
    """Return the solver of ``spec``: a name, with settings if wanted, as "sa:predictor_order=2,tau=0.5", or a solver.

    A τ window is written "tau=1@0.05:1": 1 where σ/α is between 0.05 and 1.

    Raises:
        InputError: if there is no such solver, or a setting is not one of its own or not allowed.
    """
    if isinstance(spec, Solver):
        return spec
    if not isinstance(spec, str):
        raise InputError(f"solver is {spec!r}: write 'unipc', 'unipc:order=2' or an object, as fs.UniPC(2).")
    name, settings = parse(spec)
    tau = settings.get("tau")
    if isinstance(tau, str) and "@" in tau:
        settings["tau"] = _window(tau)
    return build("solver", name, NAMES, settings)


def _window(text: str) -> taus.Tau:
    try:
        value, bounds = text.split("@")
        low, high = bounds.split(":")
        numbers = float(value), float(low), float(high)
    except ValueError as error:
        raise InputError(f"tau={text} is no window: write tau=1@0.05:1, the value at σ/α from 0.05 to 1.") from error
    return taus.window(*numbers)

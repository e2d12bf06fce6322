"""Solvers by name."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

from fewstep.errors import InputError
from fewstep.processes.spec import build, parse
from fewstep.solvers import tau as taus
from fewstep.solvers.base import NAMES, Solver

__all__ = ["named", "spelled"]


def named(spec: str | Solver) -> Solver:
    """Return the solver of ``spec``: a name, with settings if needed, as "sa:predictor_order=2,tau=0.5", or a solver.

    A τ window is written "tau=1@0.05:1": 1 where σ/α is between 0.05 and 1; a τ for each step "tau=(0.3, 0.5)".

    Raises:
        InputError: if there is no such solver, or a setting is unknown or not allowed.
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


def spelled(solver: str | Solver) -> str:
    """Return a solver as ``named`` takes it: ``named(spelled(solver)) == solver``.

    One with settings is written with at least one of them, so that nothing is taken from elsewhere.

    Raises:
        InputError: if it has no name, or a setting that cannot be written in words, such as a function as τ.
    """
    if isinstance(solver, str):
        return solver
    solver = named(solver)
    name = getattr(type(solver), "name", "")
    if not name or not is_dataclass(solver):
        raise InputError(
            f"the solver {solver!r} has no name that could be saved: give its class one, name = 'my-solver'."
        )
    settings = {field.name: getattr(solver, field.name) for field in fields(solver)}
    values = {field.name: settings[field.name] for field in fields(solver) if settings[field.name] != field.default}
    values = values or dict(list(settings.items())[:1])
    for key, value in values.items():
        if key == "tau" and isinstance(value, tuple):
            value = taus.as_tau(value)
        if isinstance(value, taus.Tau) and type(value).__str__ is not object.__str__:
            values[key] = str(value)
        elif not isinstance(value, (int, float, str)):
            raise InputError(
                f"{key} of {name} is {value!r}, which cannot be saved in words: give a number or a window."
            )
    return ":".join(filter(None, (name, ",".join(f"{key}={value}" for key, value in values.items()))))


def _window(text: str) -> taus.Tau:
    try:
        value, bounds = text.split("@")
        low, high = bounds.split(":")
        numbers = float(value), float(low), float(high)
    except ValueError as error:
        raise InputError(f"tau={text} is not a window: write tau=1@0.05:1, the value at σ/α from 0.05 to 1.") from error
    return taus.window(*numbers)

"""The base plan: the plan of the given solver, which fits start from."""

from __future__ import annotations

import torch

from fewstep.errors import InputError
from fewstep.executor.fold import foldable
from fewstep.plan import Plan
from fewstep.solvers import SASolver, Solver
from fewstep.time_grid import TimeGrid

__all__ = ["base_plan"]


def base_plan(solver: Solver, grid: TimeGrid, *, noise: bool = False) -> Plan:
    """Return ``solver.plan(grid)``.

    Raises:
        InputError: if the plan adds noise, unless ``noise`` is allowed, cannot be folded to one row a call, or is a
            batch of plans.
    """
    if not isinstance(solver, Solver):
        raise InputError(f"solver is {solver!r}: give one such as fs.UniPC().")
    if not isinstance(grid, TimeGrid) or grid.times.ndim != 1:
        raise InputError(f"grid is {grid!r}: give one TimeGrid, such as fs.grids.karras(process, steps=8).")
    plan = solver.plan(grid)
    if plan.stochastic and not noise:
        start, end = grid.times[plan.interval[plan.noise_scale != 0][0] + torch.arange(2)].tolist()
        raise InputError(
            f"{plan.solver.partition('(')[0]} adds noise from t = {start:.6g} to {end:.6g}: its samples have no single "
            "solution to be fitted to. Calibrate a deterministic solver: fs.UniPC(), or tau=0 or eta=0; or the "
            "distribution of SASolver's samples, by objective='distribution'."
        )
    if plan.stochastic and not isinstance(solver, SASolver):
        raise InputError(
            f"{plan.solver.partition('(')[0]} adds noise: that of each step is fitted for SASolver alone. "
            "SASolver(1, 0, tau=1.0, few_step=True) is DDIM with η = 1."
        )
    if plan.analytic:
        raise InputError(f"{plan.solver}: leave analytic_first out; calibrate chooses it, by analytic=1.")
    if not foldable(plan):
        raise InputError(
            f"{plan.solver} makes {plan.nfe} calls in {plan.steps} steps: calibration fits one row a call. Take "
            "fs.UniPC(), or SASolver(..., tau=0.0, few_step=True), with as many steps as calls."
        )
    return plan

"""A pipeline's own sampler as a plan: the solver that its scheduler is, on the levels that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fewstep.errors import InputError
from fewstep.integrations.diffusers.observed import observed
from fewstep.integrations.diffusers.origin import config_of
from fewstep.plan import Plan
from fewstep.solvers import DDIM, DEIS, IPNDM, DPMSolverPP, Euler, Solver, UniPC
from fewstep.time_grid import TimeGrid

__all__ = ["counterpart", "default_plan"]

EULER = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "FlowMatchEulerDiscreteScheduler")
DETERMINISTIC = ("CogVideoXDDIMScheduler", "DDIMParallelScheduler", "DDIMScheduler")
NOISY = ("DDPMParallelScheduler", "DDPMScheduler")
ALMOST_ONE = 1.0 - 1e-6
"""Where a flow starts: at t = 1 nothing of the data is left, and λ = −∞."""


def counterpart(config: Mapping[str, Any]) -> Solver:
    """Return the solver that a scheduler's configuration is of; of a scheduler that adds noise the one without.

    Raises:
        InputError: if there is none here.
    """
    name, order = config["_class_name"], config.get("solver_order", 2)
    if name in EULER:
        return Euler()
    if name in (*DETERMINISTIC, *NOISY):
        return DDIM()
    if name == "PNDMScheduler":
        return IPNDM(4)
    if name == "DEISMultistepScheduler":
        return DEIS(order)
    if name == "DPMSolverMultistepScheduler" and config.get("algorithm_type", "dpmsolver++") == "dpmsolver++":
        return DPMSolverPP(order)
    if name == "UniPCMultistepScheduler":
        return UniPC(order, config.get("solver_type", "bh2"))
    raise InputError(f"{name} has no counterpart among fewstep's solvers.")


def default_plan(pipe: Any, steps: int, call: Mapping[str, Any]) -> tuple[str, Plan]:
    """Return what a pipeline runs by itself in ``steps`` steps as a plan, and the name of its scheduler.

    The pipeline is called up to its scheduler's ``set_timesteps``; no network but its text encoders is called. The
    plan of a scheduler that adds noise is the one without noise on its levels.

    Raises:
        InputError: if the scheduler has no counterpart, or the pipeline refuses the call.
    """
    config = config_of(pipe.scheduler)
    solver, seen = counterpart(config), observed(pipe, steps, call)
    process = seen.formulation.process
    times = seen.times.clamp(max=min(ALMOST_ONE, process.t_limit) if seen.is_flow else process.t_limit)
    times = torch.cat([times[:1], times[1:][times.diff() < 0]])  # PNDM calls the network twice at one time.
    if float(times[-1]) > 0:
        times = torch.cat([times, torch.zeros(1, dtype=torch.float64)])
    return config["_class_name"], solver.plan(TimeGrid(process, times))

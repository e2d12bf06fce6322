"""The placement of steps: the grid of a pipeline call, from its settings or from what the pipeline passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep import grids
from fewstep.errors import InputError, unknown_name
from fewstep.grids.optimized import SEARCHED
from fewstep.integrations.diffusers.formulation import EDMFormulation, FlowFormulation, Formulation
from fewstep.integrations.diffusers.levels import beta_quantiles, flagged, times_of
from fewstep.integrations.diffusers.recipe import RecipeSolver
from fewstep.processes import Process
from fewstep.processes.spec import parse
from fewstep.solvers import Solver
from fewstep.time_grid import TimeGrid

__all__ = [
    "PLACEMENTS",
    "check_placement",
    "custom_grid",
    "grid_of",
    "is_heuristic",
    "is_pipelines_own",
    "on_whole_indices",
]

ALMOST_ONE = 1.0 - 1e-6
"""Where a flow starts: at t = 1 nothing of the data is left, and λ = −∞."""
Make = Callable[[Formulation, Mapping[str, Any], int, Solver], TimeGrid]


def check_placement(config: Mapping[str, Any]) -> None:
    """Refuse unknown names among the settings of the grid.

    Raises:
        InputError: with the nearest match.
    """
    if isinstance(config["grid"], (int, float)):
        raise InputError(
            f"grid is {config['grid']!r}: it says where the steps are, such as 'optimized'; their number is "
            "the pipeline's num_inference_steps, or the steps of fs.enable."
        )
    if isinstance(config["grid"], str):
        name, settings = parse(config["grid"])
        placements = set(grids.NAMES) if settings else {*PLACEMENTS, *grids.NAMES}
        if name not in placements:
            raise unknown_name("grid", name, placements)
    known = {
        "timestep_spacing": ("linspace", "leading", "trailing"),
        "final_sigmas_type": ("zero", "sigma_min"),
        "sigma_schedule": ("karras", "exponential"),
    }
    for name, values in known.items():
        if config[name] not in values:
            raise unknown_name(name, config[name], values)


def grid_of(formulation: Formulation, config: Mapping[str, Any], num: int, solver: Solver) -> TimeGrid:
    """Return the grid of ``num`` steps that the setting ``grid`` describes.

    Raises:
        InputError: if ``num`` is no whole number above 0, or ``grid`` a list of times that is not as long.
    """
    placement = config["grid"]
    if isinstance(num, bool) or int(num) != num or num < 1:
        raise InputError(f"num_inference_steps is {num!r}: give a whole number of at least 1.")
    if not isinstance(placement, str):
        grid = TimeGrid(formulation.process, placement)
        calls = solver.recipe.plan.nfe if isinstance(solver, RecipeSolver) else grid.steps
        if calls != num:
            source = "grid has times" if config["recipe"] is None else "the recipe is"
            raise InputError(f"{source} of {calls} steps: call with num_inference_steps={calls}.")
        return grid
    if placement in PLACEMENTS:
        return PLACEMENTS[placement](formulation, config, int(num), solver)
    if is_heuristic(placement, num):
        return _uniform_logsnr(formulation, config, int(num), solver)
    return _named_grid(placement, formulation.process, solver, int(num), _end(config, formulation))


def is_heuristic(placement: str, num: int) -> bool:
    """Return whether there are too many steps to optimise them, so that "uniform_logsnr" takes their place."""
    return parse(placement)[0] == "optimized" and num > SEARCHED


def custom_grid(formulation: Formulation, config: Mapping[str, Any], times: Tensor) -> TimeGrid:
    """Return the grid through ``times`` (falling, without the end) to where the configuration ends."""
    return TimeGrid(formulation.process, _ended(formulation, config, times))


def is_pipelines_own(sigmas: Tensor) -> bool:
    """Return whether the sigmas are 1, 1 − 1/n, …, 1/n: what flow pipelines pass where the user gave none."""
    num = len(sigmas)
    return bool((sigmas - torch.linspace(1.0, 1.0 / num, num, dtype=torch.float64)).abs().max() < 1e-5)


def on_whole_indices(formulation: Formulation, times: Tensor) -> Tensor:
    """Return ``times`` moved to where the network is fed whole numbers, no two the same.

    Raises:
        InputError: if there are more steps than whole numbers, or the network has a continuous level for a time.
    """
    if not formulation.indices:
        raise InputError("integer_timesteps=True: an EDM network receives ¼·log σ, which is not whole; leave it False.")
    lowest, sign = (1.0, 1.0) if isinstance(formulation, FlowFormulation) else (0.0, 1.0)
    if isinstance(formulation, FlowFormulation) and formulation.inverted:
        lowest, sign = 1.0 - formulation.indices, -1.0
    indices = sign * formulation.network_time(times).round()
    for n in range(1, len(indices)):
        indices[n] = torch.minimum(indices[n], indices[n - 1] - 1)
    for n in range(len(indices) - 1, -1, -1):
        indices[n] = torch.clamp(indices[n], min=lowest)
        lowest = float(indices[n]) + 1.0
    moved = formulation.time(sign * indices)
    if float(moved[0]) > formulation.process.t_limit:
        raise InputError(f"integer_timesteps=True: there are no {len(times)} different whole timesteps.")
    return moved


def _end(config: Mapping[str, Any], formulation: Formulation) -> Any:
    return "zero" if config["final_sigmas_type"] == "zero" else formulation.process.t_min


def _ended(formulation: Formulation, config: Mapping[str, Any], times: Tensor) -> Tensor:
    """Return ``times`` and the last one; where the smallest training level is taken already, that is zero."""
    end = 0.0 if config["final_sigmas_type"] == "zero" else formulation.process.t_min
    if float(times[-1]) <= end * (1 + 1e-9):
        end = 0.0
    if isinstance(formulation, FlowFormulation):
        times = times.clamp(max=ALMOST_ONE)
    return torch.cat([times, torch.tensor([end], dtype=torch.float64)])


def _simple(formulation: Formulation, config: Mapping[str, Any], num: int, solver: Solver) -> TimeGrid:
    """Return what diffusers' UniPC would take from the same configuration; of a flow's with a flag, FlowMatchEuler."""
    named = flagged(config)
    if isinstance(formulation, EDMFormulation):
        named = named or config["sigma_schedule"]
    if isinstance(formulation, FlowFormulation):
        if named and named != "uniform_logsnr" and not config["use_flow_sigmas"]:
            return _flagged_flow(formulation, config, num)
        named = named or "linspace"
    return PLACEMENTS[named or config["timestep_spacing"]](formulation, config, num, solver)


def _flagged_flow(formulation: FlowFormulation, config: Mapping[str, Any], num: int) -> TimeGrid:
    """Return FlowMatchEuler's levels: from 1 to what its shift makes of the smallest training level."""
    low = torch.tensor([1.0 / formulation.indices], dtype=torch.float64)
    low = low if config["use_dynamic_shifting"] else formulation.from_level(low)
    clock = torch.lerp(torch.ones(1, dtype=torch.float64), low, torch.linspace(0.0, 1.0, num, dtype=torch.float64))
    return custom_grid(formulation, config, times_of(formulation, config, clock))


def _spaced(spacing: str) -> Make:
    """Return the maker of a grid over whole training indices, as in table 2 of arXiv 2305.08891."""

    def make(formulation: Formulation, config: Mapping[str, Any], num: int, solver: Solver) -> TimeGrid:
        if not formulation.indices:
            raise InputError(f"grid={spacing!r} spaces training indices, and EDM networks have none: write 'karras'.")
        last = formulation.indices
        count = np.arange(num)
        if spacing == "trailing":
            exact = last * (1.0 - count / num) - 1.0
        elif spacing == "leading":
            exact = (num - count) * float(last // (num + 1)) + config["steps_offset"]
        else:
            exact = (last - 1) * (1.0 - count / num)
        if isinstance(formulation, FlowFormulation):
            clock = torch.from_numpy((exact + 1.0) / last)
            return custom_grid(formulation, config, times_of(formulation, config, clock))
        whole = exact.round()
        if (np.diff(whole) >= 0).any() or whole[-1] < 0 or whole[0] > last - 1:
            whole = (last - 1) * (1.0 - count / num)
        return custom_grid(formulation, config, formulation.time(torch.from_numpy(whole)))

    return make


def _beta(formulation: Formulation, config: Mapping[str, Any], num: int, solver: Solver) -> TimeGrid:
    """Return levels at the quantiles of Beta(0.6, 0.6) (arXiv 2407.12173), as diffusers reads it: over sigma."""
    process = formulation.process
    low, high = (formulation.level(torch.tensor(t, dtype=torch.float64)) for t in (process.t_min, process.t_max))
    count = num if config["final_sigmas_type"] == "zero" else num + 1
    levels = low + beta_quantiles(count) * (high - low)
    if isinstance(formulation, FlowFormulation):
        times = levels if not formulation.inverted else 1.0 - levels
    else:
        times = formulation.from_level(levels)
    return TimeGrid(process, times) if count > num else custom_grid(formulation, config, times)


def _uniform_logsnr(formulation: Formulation, config: Mapping[str, Any], num: int, solver: Solver) -> TimeGrid:
    return grids.uniform_logsnr(formulation.process, num, end=_end(config, formulation))


def _karras(formulation: Formulation, config: Mapping[str, Any], num: int, solver: Solver) -> TimeGrid:
    if isinstance(formulation, FlowFormulation) and config["sigma_min"] and config["sigma_max"]:
        return _karras_flow(formulation, config, num)
    return grids.karras(formulation.process, num, rho=config["rho"], end=_end(config, formulation))


def _karras_flow(formulation: FlowFormulation, config: Mapping[str, Any], num: int) -> TimeGrid:
    """Return what diffusers' UniPC takes for a flow between sigma_max and sigma_min, levels of σ/α (Cosmos 2.5)."""
    root = 1.0 / config["rho"]
    high, low = config["sigma_max"] ** root, config["sigma_min"] ** root
    levels = torch.linspace(high, low, num, dtype=torch.float64) ** config["rho"]
    return custom_grid(formulation, config, levels / (levels + 1.0))


def _optimized(formulation: Formulation, config: Mapping[str, Any], num: int, solver: Solver) -> TimeGrid:
    if is_heuristic("optimized", num):
        return _uniform_logsnr(formulation, config, num, solver)
    power = config["error_power"]
    spec = "optimized" if power is None else f"optimized:error_power={float(power)!r}"
    return _named_grid(spec, formulation.process, solver, num, _end(config, formulation))


@lru_cache(maxsize=64)
def _named_grid(spec: str, process: Process, solver: Solver, num: int, end: Any) -> TimeGrid:
    """Return the grid of ``spec``: found once, for it may take seconds and every call of a pipeline asks for it."""
    return grids.named(spec, process, num, end, solver=solver)


PLACEMENTS: dict[str, Make] = {
    "beta": _beta,
    "exponential": _uniform_logsnr,
    "karras": _karras,
    "leading": _spaced("leading"),
    "linspace": _spaced("linspace"),
    "optimized": _optimized,
    "simple": _simple,
    "trailing": _spaced("trailing"),
    "uniform_logsnr": _uniform_logsnr,
}
"""The names of diffusers' grids, and of those whose settings are the scheduler's; besides, ``grids.NAMES``."""

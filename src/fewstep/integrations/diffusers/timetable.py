"""The timetable of one pipeline call: its grid, and what the network is fed at each step."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep import grids
from fewstep.checks import as_given, shown
from fewstep.errors import InputError
from fewstep.integrations.diffusers.formulation import FlowFormulation, Formulation, VPFormulation
from fewstep.integrations.diffusers.levels import times_of
from fewstep.integrations.diffusers.placement import (
    custom_grid,
    grid_of,
    is_pipelines_own,
    on_whole_indices,
)
from fewstep.solvers import Solver
from fewstep.time_grid import TimeGrid

__all__ = ["Timetable", "Values", "as_fed", "timetable_of", "training_timesteps"]

Values = Sequence[float] | np.ndarray | Tensor


@dataclass(frozen=True)
class Timetable:
    """A grid and what belongs to its steps.

    Attributes:
        formulation: the process and its conventions.
        grid: N + 1 times.
        timesteps: what the network is fed, [N]: int64 if all are whole numbers of a discrete schedule, else float32.
        paired: whether the timesteps were given beside the sigmas, so that they need not belong together.
    """

    formulation: Formulation
    grid: TimeGrid
    timesteps: Tensor
    paired: bool = False

    @property
    def sigmas(self) -> Tensor:
        """Sigmas in diffusers' sense, float32 [N + 1]."""
        return self.formulation.level(self.grid.times).to(torch.float32)

    def nearest(self, timestep: Tensor) -> Tensor:
        """Return the number of the step whose timestep is nearest to each of ``timestep`` [...]."""
        known = self.timesteps.to(timestep.device, torch.float32)
        return (known - timestep.to(torch.float32)[..., None]).abs().argmin(-1)

    def times_of(self, timesteps: Tensor) -> Tensor:
        """Return the time at which the network is fed each of ``timesteps``, float64."""
        if self.paired:
            return self.grid.times.to(timesteps.device)[self.nearest(timesteps)]
        return self.formulation.time(timesteps)


def training_timesteps(formulation: Formulation) -> Tensor:
    """Return what the network was fed in training, falling in noise, float32: a scheduler's timesteps at first."""
    if not formulation.indices:
        return formulation.network_time(grids.karras(formulation.process, 1000).times[:-1]).to(torch.float32)
    count = torch.arange(formulation.indices, 0, -1, dtype=torch.float64)
    return formulation.network_time(count / formulation.indices).to(torch.float32)


def timetable_of(
    formulation: Formulation,
    config: Mapping[str, Any],
    solver: Solver,
    num: int | None,
    timesteps: Values | None,
    sigmas: Values | None,
) -> Timetable:
    """Return the timetable of a call of ``set_timesteps``.

    Raises:
        InputError: if neither a number nor a list is given, they disagree, or a list does not fall.
    """
    fed = None if timesteps is None else _checked("timesteps", timesteps)
    levels = None if sigmas is None else _without_end(_checked("sigmas", sigmas))
    counts = {len(values) for values in (fed, levels) if values is not None} | ({num} if num is not None else set())
    if len(counts) != 1:
        shown = f"num_inference_steps={num}, {_length(fed)} timesteps, {_length(levels)} sigmas"
        raise InputError(f"{shown}: give a number of steps, timesteps, or sigmas; what is given must agree.")
    if levels is not None and fed is None and config["grid"] != "simple" and is_pipelines_own(levels):
        levels = None
    if levels is not None:
        if not bool((levels > 0).all()):
            raise InputError(
                f"sigmas are {levels.tolist()[:8]}: give levels above 0, from noise to data, then 0 or not."
            )
        _warn_if_placed(formulation, config, levels)
        grid = custom_grid(formulation, config, _falling("sigmas", times_of(formulation, config, levels)))
    elif fed is not None:
        times = formulation.time(fed)
        if not bool(((times > 0) & (times <= formulation.process.t_limit * (1 + 1e-6))).all()):
            raise untrained(formulation, fed)
        grid = custom_grid(formulation, config, _falling("timesteps", times))
    else:
        grid = grid_of(formulation, config, counts.pop(), solver)
    if config["integer_timesteps"]:
        grid = custom_grid(formulation, config, on_whole_indices(formulation, grid.times[:-1]))
    if fed is None or levels is None:
        fed = formulation.network_time(grid.times[:-1])
        return Timetable(formulation, grid, as_fed(formulation, config, fed))
    return Timetable(formulation, grid, as_fed(formulation, config, fed), paired=True)


def untrained(formulation: Formulation, timesteps: Tensor) -> InputError:
    """Return the error of timesteps beyond those that the network was trained on."""
    process = formulation.process
    ends = torch.tensor([process.t_min, process.t_max], dtype=torch.float64)
    low, high = sorted(formulation.network_time(ends).tolist())
    shown = ", ".join(f"{value:g}" for value in timesteps.flatten()[:8].tolist())
    return InputError(
        f"timesteps are {shown}: the network was trained on {low:.6g} to {high:.6g}; give some of scheduler.timesteps."
    )


def _warn_if_placed(formulation: Formulation, config: Mapping[str, Any], levels: Tensor) -> None:
    """Warn if a flow's steps are placed by a setting and by sigmas too: some pipelines always pass their own."""
    if isinstance(formulation, FlowFormulation) and config["grid"] != "simple" and config["recipe"] is None:
        warnings.warn(
            f"{len(levels)} sigmas are given, by you or by the pipeline: they are used, and the setting "
            f"grid={config['grid']!r} is not.",
            UserWarning,
            stacklevel=5,
        )


def as_fed(formulation: Formulation, config: Mapping[str, Any], fed: Tensor) -> Tensor:
    """Return the timesteps in the dtype that the network gets: whole training indices as int64, as peers do."""
    whole = fed.round()
    counted = isinstance(formulation, VPFormulation) and bool((fed - whole).abs().max() < 1e-6)
    if config["integer_timesteps"] or counted:
        return whole.to(torch.int64)
    return torch.where((fed - whole).abs() < 1e-9, whole, fed).to(torch.float32)


def _checked(name: str, values: Values) -> Tensor:
    try:
        given = as_given(values)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{name} are {shown(values)}: give numbers.") from error
    if given.is_complex() or given.dtype == torch.bool or given.is_meta:
        raise InputError(f"{name} are {shown(values)}: give numbers.")
    tensor = given.detach().to("cpu", torch.float64).flatten()
    if tensor.numel() == 0 or not bool(torch.isfinite(tensor).all()):
        raise InputError(f"{name} are {tensor.tolist()}: give at least one, all finite.")
    return tensor


def _falling(name: str, times: Tensor) -> Tensor:
    if bool((times.diff() >= 0).any()):
        raise InputError(f"{name} repeat or turn back: give each level once, from noise to data.")
    return times


def _without_end(levels: Tensor) -> Tensor:
    """Return the levels without the zero at their end, which other schedulers want written or not."""
    return levels[:-1] if len(levels) > 1 and float(levels[-1]) == 0.0 else levels


def _length(values: Tensor | None) -> str:
    return "no" if values is None else str(len(values))

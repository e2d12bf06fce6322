"""Inversion: the ODE from data to noise, run by the ordinary solvers and executor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fewstep.checks import shown
from fewstep.denoiser import Condition, DataPredictor
from fewstep.errors import InputError
from fewstep.executor import Callback, check_denoiser, execute
from fewstep.plan import Plan
from fewstep.processes import Process
from fewstep.processes.base import Real, as_float64, on_host
from fewstep.solvers import Solver
from fewstep.solvers.base import as_solver
from fewstep.time_grid import TimeGrid, as_grid

__all__ = ["NoisePredictor", "TowardsNoise", "inversion_plan", "invert"]


def invert(
    denoiser: DataPredictor | Callable[..., Tensor],
    solver: Solver,
    grid: TimeGrid,
    x: Tensor,
    *,
    cond: Any = None,
    callback: Callback | None = None,
) -> Tensor:
    r"""Return the state at the grid's first time that the ODE makes of ``x`` at its last one: "unsampling".

    The solver's plan is made for the ODE with data and noise exchanged (``TowardsNoise``), so that any deterministic
    solver serves; Euler, DDIM and UniPC are usual. ``fs.sample`` on the same grid brings the state back, up to the
    solvers' errors.

    Args:
        denoiser: as for ``fs.execute``.
        solver: a deterministic one.
        grid: the times to go through, from noise to data as always; the last is above 0, because at the noise-free
            end the data hold no trace of their noise.
        x: [batch, …], the state at ``grid.times[-1]``.
        cond: what the denoiser takes as a condition.
        callback: as for ``fs.execute``, with noise predictions, and times that count from the grid's first time down.

    Raises:
        InputError: if the grid ends at 0, or the solver adds noise.
        NonFiniteStateError: if a state stops being finite.
    """
    plan = inversion_plan(solver, grid)
    check_denoiser(denoiser)
    if not isinstance(x, Tensor) or x.ndim < 1:
        raise InputError(f"x is {shown(x)}: give a tensor [batch, …], the state at the grid's last time.")
    predictor = NoisePredictor(denoiser, plan.process)  # type: ignore[arg-type]
    if isinstance(denoiser, DataPredictor):
        cond = denoiser.check_cond(cond, x.shape[0])
    return execute(plan, predictor, x, cond=cond, callback=callback)


@on_host
def inversion_plan(solver: Solver, grid: TimeGrid) -> Plan:
    """Return the solver's plan from the grid's last time to its first, on ``TowardsNoise``.

    Raises:
        InputError: as ``invert``.
    """
    if as_grid(grid).ends_at_zero:
        raise InputError(
            "the grid ends at 0, where nothing of the noise is left: end it at a small time, such as "
            f"end={grid.process.t_min:g}."
        )
    turned = TowardsNoise(grid.process, float(grid.times[..., 0].max()))
    plan = as_solver(solver).plan(TimeGrid(turned, turned.t_limit - grid.times.flip(-1)))
    if plan.stochastic:
        raise InputError(f"{solver!r} adds noise, which inversion cannot: take a deterministic solver, with tau=0.")
    return plan


class TowardsNoise(Process):
    r"""A process with α and σ exchanged and time turned around: t' = t_start − t, α' = σ, σ' = α, λ' = −λ.

    x_t = α'·ε + σ'·x_0 is the noising process of a "data" ε with the "noise" x_0, and the probability-flow ODE is the
    same one. Its times fall from t_start − t_min, where x is the data, to 0, where x is the noise of t_start.

    Args:
        inner: the process that is run backwards.
        start: t_start, the noisiest time; t_max by default.
    """

    ends_at_zero = False

    def __init__(self, inner: Process, start: float | None = None) -> None:
        self.inner, self.start = inner, inner.t_max if start is None else start
        self.t_min, self.t_max, self.t_limit = 0.0, self.start - inner.t_min, self.start
        self.straight = inner.straight

    def inner_time(self, t: Real) -> Tensor:
        """Return the time of the inner process."""
        return self.start - as_float64(t)

    def alpha(self, t: Real) -> Tensor:
        """Return α' = σ."""
        return self.inner.sigma(self.inner_time(t))

    def sigma(self, t: Real) -> Tensor:
        """Return σ' = α."""
        return self.inner.alpha(self.inner_time(t))

    def half_logsnr(self, t: Real) -> Tensor:
        """Return λ' = −λ."""
        return -self.inner.half_logsnr(self.inner_time(t))

    def time(self, half_logsnr: Real) -> Tensor:
        """Return the time at which λ' is ``half_logsnr``."""
        return (self.start - self.inner.time(-as_float64(half_logsnr))).clamp(min=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return the inner process's settings, under a name of its own."""
        return {"name": "towards-noise", "inner": self.inner.to_dict(), "start": self.start}

    def __repr__(self) -> str:
        return f"TowardsNoise({self.inner!r})"


class NoisePredictor(DataPredictor):
    """ε̂ = (x − α·D)/σ: a denoiser's noise prediction, as the data prediction of ``TowardsNoise``.

    Args:
        inner: the denoiser, or any callable (x_t, t) → x0.
        process: the process to predict on; by default that of the denoiser, from its t_max.

    Raises:
        InputError: if the denoiser is of another process.
    """

    def __init__(self, inner: DataPredictor | Callable[..., Tensor], process: TowardsNoise | None = None) -> None:
        of_denoiser = getattr(inner, "process", None)
        if process is None and of_denoiser is None:
            raise InputError(f"{inner!r} has no known process: give it, TowardsNoise(process).")
        self.process: TowardsNoise = TowardsNoise(of_denoiser) if process is None else process  # type: ignore[arg-type]
        if of_denoiser is not None and of_denoiser != self.process.inner:
            raise InputError(
                f"the grid is of {self.process.inner!r}, the denoiser of {of_denoiser!r}: take the denoiser's process."
            )
        self.inner = inner
        self.shape, self.num_classes = getattr(inner, "shape", None), getattr(inner, "num_classes", None)

    @property
    def device(self) -> torch.device:
        """Where the inner network lives."""
        return torch.device(getattr(self.inner, "device", "cpu"))

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition = None) -> Tensor:
        """Return ε̂."""
        time, process = self.process.inner_time(t), self.process.inner
        data = self.inner(x_t, time) if cond is None else self.inner(x_t, time, cond)
        return (x_t - process.alpha(time) * data) / process.sigma(time)

"""The summary of a pipeline: its active settings, and its last call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline

from fewstep.grids.optimized import SEARCHED
from fewstep.integrations.diffusers.guidance_interval import IntervalGuard
from fewstep.integrations.diffusers.placement import is_heuristic
from fewstep.integrations.diffusers.scheduler import FewStepScheduler
from fewstep.integrations.diffusers.stopwatch import Stopwatch

__all__ = ["Summary"]


@dataclass(frozen=True)
class Summary:
    """What ``fs.summary`` returns.

    Attributes:
        pipeline: the name of the pipeline's class.
        solver: the solver, as fewstep writes it; the name of the scheduler's class where the pipeline keeps its own.
        process: the process, as fewstep writes it; None with the pipeline's own scheduler.
        grid: the setting ``grid``: a name, or times; None with the pipeline's own scheduler.
        skip: whether Skip-Tuning is active.
        skip_source: ρ and where it comes from, if by the number of calls.
        steps: the number of steps of the last call; None before it. So with the next four.
        timesteps: what the network was fed.
        sigmas: the levels, in diffusers' sense; None too for a scheduler that has none.
        calls: the network calls by the network's name; None where the pipeline was not enabled.
        network_seconds: the time in the networks.
        other_seconds: the rest of the call: text encoders, scheduler, decoder.
        guidance_interval: σ/α in which the pipeline guides, (low, high]; None is everywhere.
        unguided_steps: the steps of the last call in which one branch alone was evaluated.
    """

    pipeline: str
    solver: str
    process: str | None
    grid: Any
    skip: bool
    steps: int | None = None
    timesteps: list[float] | None = None
    sigmas: list[float] | None = None
    calls: dict[str, int] | None = None
    network_seconds: float | None = None
    other_seconds: float | None = None
    guidance_interval: tuple[float, float] | None = None
    unguided_steps: int | None = None
    skip_source: str | None = None

    @classmethod
    def of(
        cls,
        pipe: DiffusionPipeline,
        scheduler: FewStepScheduler,
        watch: Stopwatch | None,
        skip: bool,
        interval: tuple[float, float] | None = None,
        guard: IntervalGuard | None = None,
        skip_source: str | None = None,
    ) -> Summary:
        """Return the summary of a pipeline and its last call."""
        ran = scheduler.num_inference_steps is not None
        network = None if watch is None else watch.network_seconds
        return cls(
            pipeline=type(pipe).__name__,
            solver=repr(scheduler.solver),
            process=repr(scheduler.formulation.process),
            grid=scheduler.config.grid,
            skip=skip,
            steps=scheduler.num_inference_steps,
            timesteps=scheduler.timesteps.tolist() if ran else None,
            sigmas=scheduler.sigmas.tolist() if ran else None,
            calls=None if watch is None else _counted(watch),
            network_seconds=network,
            other_seconds=None if watch is None or network is None else max(0.0, watch.seconds - network),
            guidance_interval=interval,
            unguided_steps=None if guard is None else len(guard.saved),
            skip_source=skip_source,
        )

    @classmethod
    def of_own_scheduler(
        cls, pipe: DiffusionPipeline, watch: Stopwatch | None, skip_source: str | None = None
    ) -> Summary:
        """Return the summary of a tuned pipeline that keeps its scheduler."""
        pipeline, scheduler = type(pipe).__name__, pipe.scheduler
        name, steps = type(scheduler).__name__, getattr(scheduler, "num_inference_steps", None)
        if getattr(scheduler, "custom_timesteps", False):
            steps = len(scheduler.timesteps)
        if watch is None or steps is None:
            return cls(pipeline, name, None, None, skip=True, skip_source=skip_source)
        sigmas = getattr(scheduler, "sigmas", None)
        return cls(
            pipeline,
            name,
            None,
            None,
            skip=True,
            skip_source=skip_source,
            steps=steps,
            timesteps=torch.as_tensor(scheduler.timesteps).tolist(),
            sigmas=None if sigmas is None else torch.as_tensor(sigmas).tolist(),
            calls=_counted(watch),
            network_seconds=watch.network_seconds,
            other_seconds=max(0.0, watch.seconds - watch.network_seconds),
        )

    def __str__(self) -> str:
        if self.process is None:
            return "\n".join(
                [
                    f"{self.pipeline}: Skip-Tuning is active",
                    f"  the pipeline's own scheduler, {self.solver}",
                    *([] if self.skip_source is None else [f"  skips    {self.skip_source}"]),
                    *self._last_call(),
                ]
            )
        placed = self.grid if isinstance(self.grid, str) else f"{len(self.grid) - 1} given"
        if isinstance(self.grid, str) and is_heuristic(self.grid, self.steps or 0):
            placed = f"uniform_logsnr (above {SEARCHED} steps instead of optimized)"
        lines = [
            f"{self.pipeline}: fewstep is active" + (", with Skip-Tuning" if self.skip else ""),
            f"  solver   {self.solver}",
            f"  process  {self.process}",
            f"  grid     {placed}",
        ]
        if self.skip_source is not None:
            lines.append(f"  skips    {self.skip_source}")
        if self.guidance_interval is not None:
            low, high = self.guidance_interval
            lines.append(f"  guidance where {low:g} < σ/α ≤ {high:g}")
        return "\n".join([*lines, *self._last_call()])

    def _last_call(self) -> list[str]:
        """Return the lines on the last call."""
        if self.timesteps is None:
            return ["  no call yet"]
        lines = []
        if self.calls is not None:
            calls = ", ".join(f"{count} of {name}" for name, count in self.calls.items()) or "none"
            lines.append(f"  last call: {self.steps} steps, network calls: {calls}")
            if self.unguided_steps is not None:
                lines.append(f"  {self.unguided_steps} of these steps outside the guidance interval, of one branch")
            lines.append(f"  {self.network_seconds:.3f} s in the network, {self.other_seconds:.3f} s outside it")
        else:
            lines.append(f"  last call: {self.steps} steps")
        if self.sigmas is None:
            return [*lines, "  timesteps: " + ", ".join(f"{t:.6g}" for t in self.timesteps)]
        pairs = zip(self.timesteps, self.sigmas, strict=False)
        return [*lines, "  timestep → σ: " + ", ".join(f"{t:.6g} → {s:.4g}" for t, s in pairs)]


def _counted(watch: Stopwatch) -> dict[str, int]:
    """Return the network calls of the networks that were called."""
    return {name: count for name, count in watch.calls.items() if count}

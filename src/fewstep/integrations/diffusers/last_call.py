"""The summary of a pipeline: its active settings, and its last call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
        solver: the solver, as fewstep writes it.
        process: the process, as fewstep writes it.
        grid: the setting ``grid``: a name, or times.
        skip: whether Skip-Tuning is active.
        steps: the number of steps of the last call; None before it. So with the next four.
        timesteps: what the network was fed.
        sigmas: the levels, in diffusers' sense.
        calls: the network calls by the network's name; None where the pipeline was not enabled.
        network_seconds: the time in the networks.
        other_seconds: the rest of the call: text encoders, scheduler, decoder.
        guidance_interval: σ/α in which the pipeline guides, (low, high]; None is everywhere.
        unguided_steps: the steps of the last call in which one branch alone was evaluated.
    """

    pipeline: str
    solver: str
    process: str
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

    @classmethod
    def of(
        cls,
        pipe: DiffusionPipeline,
        scheduler: FewStepScheduler,
        watch: Stopwatch | None,
        skip: bool,
        interval: tuple[float, float] | None = None,
        guard: IntervalGuard | None = None,
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
            calls=None if watch is None else {name: count for name, count in watch.calls.items() if count},
            network_seconds=network,
            other_seconds=None if watch is None or network is None else max(0.0, watch.seconds - network),
            guidance_interval=interval,
            unguided_steps=None if guard is None else len(guard.saved),
        )

    def __str__(self) -> str:
        placed = self.grid if isinstance(self.grid, str) else f"{len(self.grid) - 1} given"
        if isinstance(self.grid, str) and is_heuristic(self.grid, self.steps or 0):
            placed = f"uniform_logsnr (above {SEARCHED} steps instead of optimized)"
        lines = [
            f"{self.pipeline}: fewstep is active" + (", with Skip-Tuning" if self.skip else ""),
            f"  solver   {self.solver}",
            f"  process  {self.process}",
            f"  grid     {placed}",
        ]
        if self.guidance_interval is not None:
            low, high = self.guidance_interval
            lines.append(f"  guidance where {low:g} < σ/α ≤ {high:g}")
        if self.timesteps is None or self.sigmas is None:
            return "\n".join([*lines, "  no call yet"])
        if self.calls is not None:
            calls = ", ".join(f"{count} of {name}" for name, count in self.calls.items()) or "none"
            lines.append(f"  last call: {self.steps} steps, network calls: {calls}")
            if self.unguided_steps is not None:
                lines.append(f"  {self.unguided_steps} of these steps outside the guidance interval, of one branch")
            lines.append(f"  {self.network_seconds:.3f} s in the network, {self.other_seconds:.3f} s outside it")
        else:
            lines.append(f"  last call: {self.steps} steps")
        pairs = zip(self.timesteps, self.sigmas, strict=False)
        lines.append("  timestep → σ: " + ", ".join(f"{t:.6g} → {s:.4g}" for t, s in pairs))
        return "\n".join(lines)

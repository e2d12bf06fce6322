"""A report on what a pipeline really runs, and on whether that is right."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from fewstep.checks import flag
from fewstep.errors import InputError
from fewstep.integrations.diffusers.findings import CHECKS, Finding, prediction_against_config
from fewstep.integrations.diffusers.known_pipelines import check_replaceable, needed_settings
from fewstep.integrations.diffusers.likeness import likeness
from fewstep.integrations.diffusers.observed import COUNT, Observed, observed
from fewstep.integrations.diffusers.origin import config_of
from fewstep.integrations.diffusers.recommended import recommended
from fewstep.integrations.diffusers.scheduler import FewStepScheduler
from fewstep.integrations.diffusers.switch import PIPELINES
from fewstep.processes import Process

__all__ = ["Diagnosis", "Step", "doctor"]


@dataclass(frozen=True)
class Step:
    """A network call: the timestep that the network is fed, σ in diffusers' sense, σ/α and λ = log(α/σ)."""

    timestep: float
    sigma: float | None
    ratio: float
    half_logsnr: float


@dataclass(frozen=True)
class Diagnosis:
    """What ``fs.doctor`` returns; ``print`` it to read it.

    Attributes:
        pipeline, scheduler: the names of the classes.
        prediction: the scheduler's ``prediction_type``: what it takes the network's output for.
        process: the process, as fewstep writes it.
        shift, mu: of a flow, the shift that is applied, and what the pipeline passed; else None.
        steps: the network calls.
        own: the network calls that ``fs.enable(pipe)`` would make instead, in as many steps; None where it refuses.
        experts: the calls of each of two experts, by its name in the pipeline; None where there is one network.
        findings: what is wrong, and what to write instead; empty where nothing was found.
    """

    pipeline: str
    scheduler: str
    prediction: str
    process: str
    shift: float | None
    mu: float | None
    steps: Sequence[Step]
    findings: Sequence[Finding]
    own: Sequence[Step] | None = None
    experts: Mapping[str, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the diagnosis as JSON-able values; what is infinite, as σ/α of pure noise, is None."""
        return _finite(asdict(self))

    def __str__(self) -> str:
        shift = "" if self.shift is None else f", shift {self.shift:.4g}"
        passed = "" if self.mu is None else f" (mu = {self.mu:.4g})"
        lines = [
            f"{self.pipeline} with {self.scheduler}: {self.prediction}, {self.process}{shift}{passed}",
            f"{'call':>4} {'timestep':>10} {'σ':>10} {'σ/α':>10} {'λ':>8}",
        ]
        for i, step in enumerate(self.steps):
            sigma = "" if step.sigma is None else f"{step.sigma:.5g}"
            lines.append(f"{i:>4} {step.timestep:>10.6g} {sigma:>10} {step.ratio:>10.5g} {step.half_logsnr:>+8.3f}")
        if self.experts is not None:
            lines.append("experts: " + ", ".join(f"{count} of {name}" for name, count in self.experts.items()))
        if not self.findings:
            return "\n".join([*lines, "no fault was found"])
        return "\n".join([*lines, *(f"! {finding}" for finding in self.findings)])


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def doctor(pipe: Any, steps: int | None = None, *, measure: bool = False, **call: Any) -> Diagnosis:
    """Return what ``pipe`` will run in ``steps`` steps, and what is wrong with it.

    The pipeline is called up to its scheduler's ``set_timesteps``, at the size and with the adapters that it has, so
    that shift and levels are those of a real call; no network is called but its text encoders, and with ``measure`` the
    network in two steps, whose outputs tell what it predicts.

    Args:
        pipe: a diffusers pipeline.
        steps: the number of steps; None: the pipeline's default.
        measure: whether the network is asked whether it predicts what the scheduler takes its output for.
        **call: what the pipeline is called with: height, width, guidance_scale, sigmas, …; a prompt may be left out.

    Raises:
        InputError: if it is no pipeline with a scheduler, its process is not known here, or it refuses the call.
    """
    if not isinstance(pipe, PIPELINES) or getattr(pipe, "scheduler", None) is None:
        raise InputError(f"pipe is {type(pipe).__name__}: give a diffusers pipeline that has a scheduler.")
    seen = observed(pipe, steps, call)
    found = [check(seen) for check in CHECKS]
    if flag("measure", measure):
        found.append(prediction_against_config(seen, likeness(seen)))
    mu = seen.asked.get("mu")
    return Diagnosis(
        pipeline=type(pipe).__name__,
        scheduler=type(pipe.scheduler).__name__,
        prediction=str(seen.config.get("prediction_type", "flow_prediction" if seen.is_flow else "epsilon")),
        process=repr(seen.formulation.process),
        shift=float(seen.formulation.process.shift) if seen.is_flow else None,  # type: ignore[attr-defined]
        mu=None if mu is None else float(mu),
        steps=_steps(seen),
        findings=[finding for finding in found if finding is not None],
        own=_own(seen),
        experts=seen.experts,
    )


def _steps(seen: Observed) -> list[Step]:
    return _listed(seen.formulation.process, seen.timesteps, seen.sigmas, seen.times[: len(seen.timesteps)])


def _own(seen: Observed) -> list[Step] | None:
    """Return what fewstep's own settings for the pipeline would run, called as the pipeline calls its scheduler."""
    count = seen.asked.get(COUNT) or len(seen.timesteps)
    try:
        check_replaceable(seen.pipe)
        settings = {**recommended(seen.scheduler, seen.pipe, count), **needed_settings(seen.pipe)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler = FewStepScheduler.from_config(config_of(seen.pipe.scheduler), **settings)
            given = {name: seen.asked[name] for name in ("sigmas", "mu") if seen.asked.get(name) is not None}
            scheduler.set_timesteps(None if "sigmas" in given else count, **given)
    except InputError:
        return None
    grid = scheduler.grid
    assert grid is not None
    return _listed(grid.process, scheduler.timesteps.double(), scheduler.sigmas.double(), grid.times[:-1])


def _listed(process: Process, timesteps: Tensor, sigmas: Tensor | None, times: Tensor) -> list[Step]:
    half_logsnr = process.half_logsnr(times.clamp(max=process.t_limit))
    levels = [None] * len(times) if sigmas is None else sigmas[: len(times)].tolist()
    columns = zip(timesteps.tolist(), levels, (-half_logsnr).exp().tolist(), half_logsnr.tolist(), strict=True)
    return [Step(*values) for values in columns]

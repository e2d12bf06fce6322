"""A report on what a pipeline really runs, and on whether that is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fewstep.errors import InputError
from fewstep.integrations.diffusers.findings import CHECKS, Finding
from fewstep.integrations.diffusers.observed import Observed, observed
from fewstep.integrations.diffusers.switch import PIPELINES

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
    experts: Mapping[str, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the diagnosis as JSON-able values."""
        return asdict(self)

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


def doctor(pipe: Any, steps: int | None = None, **call: Any) -> Diagnosis:
    """Return what ``pipe`` will run in ``steps`` steps, and what is wrong with it.

    The pipeline is called up to its scheduler's ``set_timesteps``, at the size and with the adapters that it has, so
    that shift and levels are those of a real call; no network is called but its text encoders.

    Args:
        pipe: a diffusers pipeline.
        steps: the number of steps; None: the pipeline's default.
        **call: what the pipeline is called with: height, width, guidance_scale, sigmas, …; a prompt may be left out.

    Raises:
        InputError: if it is no pipeline with a scheduler, its process is not known here, or it refuses the call.
    """
    if not isinstance(pipe, PIPELINES) or getattr(pipe, "scheduler", None) is None:
        raise InputError(f"pipe is {type(pipe).__name__}: give a diffusers pipeline that has a scheduler.")
    seen = observed(pipe, steps, call)
    found = [check(seen) for check in CHECKS]
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
        experts=seen.experts,
    )


def _steps(seen: Observed) -> list[Step]:
    process, times = seen.formulation.process, seen.times[: len(seen.timesteps)]
    half_logsnr = process.half_logsnr(times.clamp(max=process.t_limit))
    sigmas = [None] * len(times) if seen.sigmas is None else seen.sigmas[: len(times)].tolist()
    columns = zip(seen.timesteps.tolist(), sigmas, (-half_logsnr).exp().tolist(), half_logsnr.tolist(), strict=True)
    return [Step(*values) for values in columns]

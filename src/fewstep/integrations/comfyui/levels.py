"""Noise levels of a ComfyUI model: its process, and the process of the states that its samplers see."""

from __future__ import annotations

import math
from typing import Any

import comfy.model_sampling
import torch
from torch import Tensor

from fewstep.errors import InputError
from fewstep.processes import EDM, Process, RectifiedFlow, VPDiscrete
from fewstep.processes.base import on_host

__all__ = ["is_flow", "process_of", "ratio_at", "sigmas_between", "state_process"]


def is_flow(sampling: Any) -> bool:
    """Whether the states are (1 − σ)·x_0 + σ·ε; those of all other models are x_0 + σ·ε."""
    return isinstance(sampling, comfy.model_sampling.CONST)


@on_host
def process_of(sampling: Any) -> Process:
    """Return the process that the model was trained on, whose even clock is the model's own time.

    A flow is ``RectifiedFlow`` with its shift (Flux's is e^shift), a model of discrete levels ``VPDiscrete`` with
    ᾱ = 1/(1 + σ²), and any other one ``EDM`` between its lowest and highest level.
    """
    if is_flow(sampling):
        shift = float(getattr(sampling, "shift", 1.0))
        return RectifiedFlow(math.exp(shift) if isinstance(sampling, comfy.model_sampling.ModelSamplingFlux) else shift)
    levels = sampling.sigmas.detach().cpu().double()
    if isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete) and bool((levels.diff() > 0).all()):
        return VPDiscrete(1.0 / (1.0 + levels**2))
    return _levels_alone(sampling)


def state_process(sampling: Any, *, as_sigma: bool = False) -> Process:
    """Return the process of the states, whose time is σ; with ``as_sigma`` EDM's for flows too.

    The network's D is the same in both, but a flow's λ is log((1 − σ)/σ), and −log σ is what some of ComfyUI's own
    samplers (dpmpp_2m) take it for.
    """
    return RectifiedFlow() if is_flow(sampling) and not as_sigma else _levels_alone(sampling)


def _levels_alone(sampling: Any) -> EDM:
    return EDM(float(sampling.sigma_min), float(sampling.sigma_max))


def ratio_at(sampling: Any, percent: float) -> float:
    """Return σ/α at a percentage of the sampling process, from 0 (noise: ∞) to 1 (data: 0)."""
    sigma = float(sampling.percent_to_sigma(percent))
    if not is_flow(sampling):
        return math.inf if percent <= 0 else sigma
    return sigma / (1.0 - sigma) if sigma < 1.0 else math.inf


@on_host
def sigmas_between(sampling: Any, make: Any, *, start: float = 0.0, end: float = 1.0) -> Tensor:
    """Return SIGMAS, float32 [N + 1], of the grid ``make(process, start=, end=)`` between two percentages.

    The first is the model's highest level at 0 %, a flow's 1; at 100 % the last is 0.

    Raises:
        InputError: unless 0 ≤ ``start`` < ``end`` ≤ 1; or if there are too many steps for distinct sigmas in float32.
    """
    if not 0 <= start < end <= 1:
        raise InputError(
            f"the grid goes from {start:g} to {end:g} of the process: give a start below the end, in [0, 1]."
        )
    process = process_of(sampling)
    first: float | str | None = _time(process, ratio_at(sampling, start))
    if first is None and is_flow(sampling):
        first = "noise"
    made = make(process, start=first, end="zero" if end >= 1 else _time(process, ratio_at(sampling, end)))
    levels = made.times if isinstance(process, RectifiedFlow) else (-made.half_logsnr).exp()
    sigmas = levels.to(torch.float32)
    if not bool((sigmas.diff() < 0).all()):
        raise InputError(
            f"{made.steps} steps are too many for distinct sigmas in float32: take fewer, or another grid."
        )
    return sigmas


def _time(process: Process, ratio: float) -> float | None:
    """Return the time at which σ/α is ``ratio``; None at or above the first one."""
    time = float(process.time(-math.log(ratio))) if math.isfinite(ratio) else math.inf
    return time if time < process.t_max else None

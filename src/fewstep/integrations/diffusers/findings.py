"""Faults of a pipeline's schedule, each with its remedy."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.integrations.diffusers.formulation import VPFormulation
from fewstep.integrations.diffusers.likeness import Likeness
from fewstep.integrations.diffusers.observed import Observed

__all__ = ["CHECKS", "Finding", "prediction_against_config"]

ALIKE = 1.15
"""Shifts that differ by less are the same: a pipeline's steps end at 1/n or at the smallest training level."""
DISTILLED = re.compile(r"lcm|lightning|hyper|turbo|dmd|schnell|tcd", re.IGNORECASE)
FOR_DISTILLED = ("LCMScheduler", "TCDScheduler", "FlowMatchLCMScheduler")


@dataclass(frozen=True)
class Finding:
    """A fault: its name, what is wrong, and what to write instead."""

    name: str
    fault: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.fault}. {self.remedy}."


def _given(seen: Observed) -> Tensor | None:
    sigmas = seen.asked.get("sigmas")
    return None if sigmas is None else torch.as_tensor(sigmas).double().flatten().cpu()


def _shift_of(levels: Tensor) -> float:
    """Return the shift s with σ = s·u/(1 + (s − 1)·u) that levels have over even u = 1, …, 1/n, at their middle."""
    n = len(levels)
    i = n // 2
    u, sigma = 1.0 - i / n, float(levels[i])
    return sigma * (1.0 - u) / (u * (1.0 - sigma)) if 0.0 < sigma < 1.0 and 0.0 < u < 1.0 else 1.0


def shifted_twice(seen: Observed) -> Finding | None:
    """Levels that are shifted already are given to a scheduler that shifts them."""
    given = _given(seen)
    if not seen.is_flow or given is None or len(given) < 3 or getattr(seen.formulation, "inverted", False):
        return None
    before, applied = _shift_of(given), float(seen.formulation.process.shift)  # type: ignore[attr-defined]
    if before < ALIKE or applied < ALIKE:
        return None
    return Finding(
        "shifted-twice",
        f"The sigmas that are given have a shift of {before:.3g} already, and the scheduler shifts "
        f"them by {applied:.3g} again",
        "Give even sigmas from 1 down to 1/n, or set the shift to 1 and use_dynamic_shifting to False",
    )


def shift_ignored(seen: Observed) -> Finding | None:
    """The pipeline computes a shift for this resolution, and the scheduler does not use it."""
    mu = seen.asked.get("mu")
    if not seen.is_flow or mu is None or seen.config.get("use_dynamic_shifting"):
        return None
    wanted, applied = float(torch.as_tensor(float(mu)).exp()), float(seen.formulation.process.shift)  # type: ignore[attr-defined]
    if max(wanted, applied) / min(wanted, applied) < ALIKE:
        return None
    what = "applies none" if applied == 1.0 else f"applies a fixed {applied:.3g}"
    return Finding(
        "shift-ignored",
        f"The pipeline computes a shift of {wanted:.3g} for this size (mu = {float(mu):.3g}), and the scheduler {what}",
        "Set use_dynamic_shifting=True in the scheduler's configuration",
    )


def noise_stays(seen: Observed) -> Finding | None:
    """The last level is not zero."""
    sigmas = seen.sigmas
    if sigmas is None or len(sigmas) != len(seen.timesteps) + 1 or getattr(seen.formulation, "inverted", False):
        return None
    if float(sigmas[-1]) <= 0.0 or float(sigmas[-1]) == float(sigmas[-2]):
        return None
    return Finding(
        "noise-stays",
        f"The last step ends at σ = {float(sigmas[-1]):.3g}, not at zero: the samples keep that noise",
        "Set final_sigmas_type='zero'",
    )


def step_wasted(seen: Observed) -> Finding | None:
    """The last step has no length."""
    sigmas = seen.sigmas
    if sigmas is None or len(sigmas) < 2 or float(sigmas[-1]) != float(sigmas[-2]):
        return None
    return Finding(
        "step-wasted",
        f"The last two levels are both {float(sigmas[-1]):.3g}: the last network call changes nothing",
        "Set final_sigmas_type='zero', or leave the levels' flags out",
    )


def first_step_late(seen: Observed) -> Finding | None:
    """A schedule of zero terminal SNR that does not begin at its last training step."""
    if not isinstance(seen.formulation, VPFormulation) or not seen.config.get("rescale_betas_zero_snr"):
        return None
    last, first = seen.formulation.indices - 1, float(seen.timesteps[0])
    if first >= last - 0.5:
        return None
    return Finding(
        "first-step-late",
        f"The model has zero SNR at its last training step, {last}, and sampling begins at {first:g}: the network "
        "expects a mean colour there that pure noise does not have",
        "Set timestep_spacing='trailing'",
    )


def expert_unused(seen: Observed) -> Finding | None:
    """One of two experts is never called."""
    unused = [name for name, count in (seen.experts or {}).items() if not count]
    if not unused:
        return None
    return Finding(
        "expert-unused",
        f"{unused[0]}, one of the pipeline's two experts, is never called: all {len(seen.timesteps)} timesteps are on "
        "the other's side of the boundary",
        "Take more steps, or a grid with a time on the boundary: fs.enable(pipe, grid='uniform_time:boundary=experts')",
    )


def timesteps_rounded(seen: Observed) -> Finding | None:
    """The network is fed another timestep than that of the level."""
    sigmas = seen.sigmas
    if not isinstance(seen.formulation, VPFormulation) or sigmas is None or len(sigmas) != len(seen.timesteps) + 1:
        return None
    exact = seen.formulation.network_time(seen.times[:-1])
    off = float((exact - seen.timesteps).abs().max())
    if off < 0.05:
        return None
    return Finding(
        "timesteps-rounded",
        f"The network is fed timesteps that are up to {off:.2g} away from those of their levels: they were rounded",
        "FewStepScheduler feeds the exact ones: fs.enable(pipe)",
    )


def timesteps_repeat(seen: Observed) -> Finding | None:
    """A timestep occurs twice."""
    values = seen.timesteps.tolist()
    repeated = sorted({value for value in values if values.count(value) > 1})
    if not repeated:
        return None
    return Finding(
        "timesteps-repeat",
        f"The network is called more than once at timestep {', '.join(f'{value:g}' for value in repeated[:5])}",
        "Take fewer steps, or another spacing",
    )


def karras_on_a_flow(seen: Observed) -> Finding | None:
    """Karras' levels, made for σ, in place of a flow's shifted ones."""
    if not seen.is_flow or not seen.config.get("use_karras_sigmas") or seen.config.get("sigma_max"):
        return None
    return Finding(
        "karras-on-a-flow",
        "use_karras_sigmas is set for a flow: its levels are not those of the shift that the model was trained with",
        "Set use_karras_sigmas=False",
    )


def distilled_on_an_undistilled_schedule(seen: Observed) -> Finding | None:
    """A distilled adapter or model under a scheduler whose timesteps it was not distilled for."""
    names = _distilled(seen)
    kind = type(seen.scheduler).__name__
    if not names or kind in FOR_DISTILLED or seen.is_flow:
        return None
    if seen.config.get("timestep_spacing") == "trailing" and len(seen.timesteps) <= 8:
        return None
    return Finding(
        "distilled-schedule",
        f"{names[0]} is distilled for few, fixed timesteps, and {kind} takes {_listed(seen.timesteps)}",
        "Take the scheduler of its model card: LCMScheduler, TCDScheduler, or timestep_spacing='trailing' in 4 or 8 "
        "steps",
    )


def guidance_doubled(seen: Observed) -> Finding | None:
    """Classifier-free guidance on a network that is distilled for guidance, or distilled altogether."""
    network = getattr(seen.pipe, "transformer", None) or getattr(seen.pipe, "unet", None)
    config = getattr(network, "config", {})
    true_scale = seen.call.get("true_cfg_scale", 1.0)
    if config.get("guidance_embeds") and true_scale is not None and true_scale > 1.0:
        return Finding(
            "guidance-doubled",
            f"The network takes the guidance scale as an input, and true_cfg_scale={true_scale:g} guides it once more",
            "Set true_cfg_scale=1 and give guidance_scale alone",
        )
    scale = seen.call.get("guidance_scale", _default(seen.pipe, "guidance_scale"))
    if _distilled(seen) and not config.get("guidance_embeds") and scale is not None and scale > 2.0:
        return Finding(
            "guidance-doubled",
            f"{_distilled(seen)[0]} is distilled for guidance, and guidance_scale={scale:g} guides it once more",
            "Set guidance_scale=1, or what its model card says",
        )
    return None


def process_against_network(seen: Observed) -> Finding | None:
    """A network of a flow under a scheduler of diffusion, or the reverse."""
    network = getattr(seen.pipe, "transformer", None)
    name = type(network).__name__
    flows = ("Flux", "SD3", "QwenImage", "Wan", "LTX", "Sana", "Lumina2", "ZImage", "HunyuanVideo", "Mochi", "AuraFlow")
    if network is None or not name.startswith(flows) or seen.is_flow:
        return None
    return Finding(
        "prediction",
        f"{name} is a flow, and the scheduler reads its output as {seen.config.get('prediction_type')!r}",
        "Set prediction_type='flow_prediction' and use_flow_sigmas=True, or take FlowMatchEulerDiscreteScheduler",
    )


def prediction_against_config(seen: Observed, likeness: Likeness) -> Finding | None:
    """A network whose outputs are not what the scheduler takes them for.

    Args:
        seen: the pipeline and its scheduler.
        likeness: of the network's outputs to its noise.
    """
    if not isinstance(seen.formulation, VPFormulation):
        return None
    says = str(seen.config.get("prediction_type", "epsilon"))
    found = likeness.prediction
    if found == says or (found is None and says != "epsilon"):
        return None
    if "epsilon" in (found, says):
        words = f"at the noisiest step it holds {likeness.high:.2f} times the noise"
        measure = "about 1 for epsilon, about 0 for the others"
    else:
        words = f"under little noise it holds {likeness.low:.2g} times the noise"
        measure = "at most 1 for a sample, well above for v"
    return Finding(
        "prediction",
        f"The scheduler reads the network's output as {says!r}, and {words}, as that of "
        f"{found or 'v_prediction (or sample)'} networks: {measure}",
        f"Set prediction_type to {found or 'v_prediction'!r}",
    )


CHECKS: tuple[Callable[[Observed], Finding | None], ...] = (
    process_against_network,
    shifted_twice,
    shift_ignored,
    karras_on_a_flow,
    first_step_late,
    noise_stays,
    step_wasted,
    expert_unused,
    timesteps_repeat,
    timesteps_rounded,
    distilled_on_an_undistilled_schedule,
    guidance_doubled,
)
"""In the order in which they are reported."""


def _distilled(seen: Observed) -> list[str]:
    """Return the names of the adapters and of the model that say they are distilled."""
    network: Any = getattr(seen.pipe, "transformer", None) or getattr(seen.pipe, "unet", None)
    names = [*getattr(network, "peft_config", {}), str(getattr(seen.pipe, "name_or_path", ""))]
    return [name for name in names if DISTILLED.search(name)]


def _default(pipe: Any, name: str) -> Any:
    parameter = inspect.signature(pipe.__call__).parameters.get(name)
    return None if parameter is None else parameter.default


def _listed(timesteps: Tensor) -> str:
    shown = [f"{value:g}" for value in timesteps.tolist()]
    return ", ".join(shown if len(shown) <= 8 else [*shown[:4], "…", *shown[-2:]])

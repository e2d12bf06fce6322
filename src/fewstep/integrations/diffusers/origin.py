"""The origin of a configuration: schedulers whose process is known here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
from diffusers import SchedulerMixin
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers

from fewstep.errors import InputError

__all__ = ["class_of_config", "config_of"]

READ = frozenset(e.name for e in KarrasDiffusionSchedulers) | {
    "CogVideoXDDIMScheduler",
    "CogVideoXDPMScheduler",
    "CosineDPMSolverMultistepScheduler",
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
    "DPMSolverMultistepInverseScheduler",
    "EDMDPMSolverMultistepScheduler",
    "FewStepScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "LCMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
}


SETTINGS = ("prediction_type", "shift")
"""What the configuration of a class that is not known has, if its process is one of those that are."""
BETAS = ("beta_schedule", "beta_start", "trained_betas")
"""So too, where the class is named, and is not one of diffusers'."""


def config_of(scheduler: SchedulerMixin) -> dict[str, Any]:
    """Return the configuration of a scheduler with the name of the class, its own or above, that it is known by."""
    kinds = [kind.__name__ for kind in type(scheduler).__mro__ if issubclass(kind, SchedulerMixin)][:-1]
    known = (name for name in kinds if name in READ or hasattr(diffusers, name))
    return {**scheduler.config, "_class_name": next(known, type(scheduler).__name__)}


def class_of_config(config: Mapping[str, Any]) -> str:
    """Return the name of the class that a configuration is of; one that was never saved shows it by its settings.

    Raises:
        InputError: if its process is not known here.
    """
    name = config.get("_class_name") or _by_settings(config)
    name = name if isinstance(name, str) else name[-1]  # A user-defined class is saved as [module, name].
    signs = (*SETTINGS, *BETAS) if config.get("_class_name") else SETTINGS
    if name not in READ and (hasattr(diffusers, name) or config.keys().isdisjoint(signs)):
        raise InputError(
            f"{name} belongs to a process that FewStepScheduler does not know: keep the pipeline's scheduler."
        )
    return name


def _by_settings(config: Mapping[str, Any]) -> str:
    """Return whose settings these are; FewStepScheduler where nothing speaks against it."""
    if "solver" in config or "_use_default_values" not in config:
        return "FewStepScheduler"
    if "sigma_data" in config and "solver_order" in config and "algorithm_type" not in config:
        return "CosineDPMSolverMultistepScheduler"
    if config.get("prediction_type") == "trigflow":
        return "SCMScheduler"
    signs = {
        "predictor_order": "SASolverScheduler",
        "snr_shift_scale": "CogVideoXDDIMScheduler",
        "shift": "FlowMatchEulerDiscreteScheduler",
        "prediction_type": "FewStepScheduler",
    }
    settings = ", ".join(key for key in config if key[:1] != "_")
    return next((name for key, name in signs.items() if key in config), f"a configuration of {settings}")

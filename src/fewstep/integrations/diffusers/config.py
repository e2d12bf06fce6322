"""The configurations of other schedulers, read as ours; settings that cannot be honoured are named in a warning."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from fewstep.integrations.diffusers.origin import class_of_config

__all__ = ["adopted"]

Config = dict[str, Any]

PROCESS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "snr_shift_scale")
"""Settings of the training process: taken over even where they are only a default of the other class."""
CLIPPING = ("clip_sample", "clip_sample_range")
"""Taken over likewise, from schedulers that never had our settings."""
EDM_SETTINGS = ("sigma_data", "sigma_min", "sigma_max", "sigma_schedule", "rho", "prediction_type")
FOR_PIPELINES = ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "shift")
"""Read by pipelines from ``scheduler.config``: kept."""
NO_MATTER = (
    "set_alpha_to_one",
    "skip_prk_steps",
    "interpolation_type",
    "euler_at_final",
    "predictor_order",
    "noise_sampler_seed",
    *FOR_PIPELINES,
)

NOT_HONOURED: dict[str, tuple[tuple[Any, ...], str]] = {
    "algorithm_type": (
        ("dpmsolver++", "deis", "data_prediction"),
        "choose by solver=: 'dpmpp' or 'unipc', and 'sa' with tau= for a stochastic one",
    ),
    "predict_x0": ((True,), "UniPC runs over data predictions; solver='deis' runs over noise predictions"),
    "solver_p": ((None,), "choose the predictor by solver="),
    "tau_func": ((None,), "write tau=1.0 and tau_window=(low, high) in σ/α"),
    "lambda_min_clipped": ((None, float("-inf"), "-inf"), "the grid begins at the last training step"),
    "stochastic_sampling": ((False,), "write solver='sa' and tau=1.0"),
    "timestep_type": (("discrete",), "only 'continuous' v-prediction is known"),
    "original_inference_steps": ((None,), "a distilled model's own steps: pass them as timesteps="),
    "timestep_scaling": ((None,), "it belongs to consistency models"),
    "sigma_min": ((None,), "the levels run over the training range"),
    "sigma_max": ((None,), "the levels run over the training range"),
}
"""Setting → the values that need nothing, and what to do about the others."""


def adopted(config: Mapping[str, Any], overrides: Mapping[str, Any], ours: Mapping[str, Any]) -> Config:
    """Return ``config`` with what another scheduler calls differently under our names.

    The settings of the model (its process, its prediction) are taken over. So are the grid's, unless they are
    defaults of the other class. Its solver is what is replaced.

    Args:
        config: a scheduler's configuration, as ``scheduler.config`` or from a file.
        overrides: what the user gives besides.
        ours: our settings and their defaults.

    Raises:
        InputError: if the scheduler's process is not known here.
    """
    origin = class_of_config(config)
    if origin.startswith("CogVideoX"):
        config = {key: value for key, value in config.items() if key not in CLIPPING}
    defaults = set(config.get("_use_default_values", ()))
    given = {key for key in config if key not in defaults and not key.startswith("_")}
    taken: Config = {key: config[key] for key in FOR_PIPELINES if key in config}
    kept = PROCESS if "solver" in config else (*PROCESS, *CLIPPING)
    taken |= {key: config[key] for key in kept if key in config and key not in given and config[key] != ours[key]}
    taken |= _flow(config, given) or _edm(config, given, origin)
    if "predictor_order" in given and "solver_order" not in given:
        taken["solver_order"] = config["predictor_order"]
    if "noise_sampler_seed" in given and config["noise_sampler_seed"] is not None:
        taken["seed"] = config["noise_sampler_seed"]
    solver = overrides.get("solver", config.get("solver", ours["solver"]))
    foreign = {"corrector_order"} if "predictor_order" in config and solver != "sa" else set()
    foreign |= {key for key, value in config.items() if callable(value)}
    understood = set(taken) if config.get("sigma_data") is None else {*taken, *EDM_SETTINGS}
    understood |= {"timestep_type"} if _continuous(config) else set()
    understood |= (
        {"sigma_min", "sigma_max"} if config.get("use_flow_sigmas") and config.get("use_karras_sigmas") else set()
    )
    for key in sorted(given - understood):
        _warn(key, config[key], ours)
    result = {"_class_name": origin, **config, **taken}
    defaults -= set(taken)
    return {**{key: value for key, value in result.items() if key not in foreign}, "_use_default_values": [*defaults]}


def _flow(config: Mapping[str, Any], given: set[str]) -> Config:
    """Return our names for FlowMatchEuler's and FlowMatchHeun's settings, which have no prediction type."""
    if "shift" not in config or given & {"prediction_type", "use_flow_sigmas", "beta_start", "beta_schedule"}:
        return {}
    flow: Config = {"prediction_type": "flow_prediction"}
    return flow if "flow_shift" in given else {**flow, "flow_shift": config["shift"]}


def _edm(config: Mapping[str, Any], given: set[str], origin: str) -> Config:
    """Return the settings of EDM's schedulers, and of an Euler one with continuous time as EDM with σ_d = 1."""
    if given & {"beta_start", "beta_end", "beta_schedule", "trained_betas"} - _continuous(config):
        return {}
    if config.get("sigma_data") is not None:
        conditioning = {"noise_conditioning": "atan"} if origin.startswith("Cosine") else {}
        return {key: config[key] for key in EDM_SETTINGS if key in config} | conditioning
    if _continuous(config):
        return {"sigma_data": 1.0, **{key: config[key] for key in EDM_SETTINGS if key in config}}
    return {}


def _continuous(config: Mapping[str, Any]) -> set[str]:
    """Return the names of the betas, which continuous time does not use; none for other schedulers."""
    continuous = config.get("timestep_type") == "continuous" and config.get("prediction_type") == "v_prediction"
    return {"beta_start", "beta_end", "beta_schedule", "trained_betas"} if continuous else set()


def _warn(key: str, value: Any, ours: Mapping[str, Any]) -> None:
    fine, advice = NOT_HONOURED.get(key, ((), ""))
    if advice and not any(value is v or value == v for v in fine):
        warnings.warn(f"FewStepScheduler does not honour {key}={value!r}: {advice}.", UserWarning, stacklevel=4)
    elif not advice and key not in ours and key not in NO_MATTER:
        warnings.warn(f"FewStepScheduler does not know {key}={value!r}: it is ignored.", UserWarning, stacklevel=4)

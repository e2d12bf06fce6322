"""The formulation of a diffusers network: its time, its output, and the meaning of "sigmas"."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fewstep.denoiser import PREDICTIONS
from fewstep.errors import InputError, unknown_name
from fewstep.processes import EDM, Process, RectifiedFlow, VPDiscrete
from fewstep.processes.vp import cosine_betas

__all__ = ["EDMFormulation", "FlowFormulation", "Formulation", "VPFormulation", "alphas_cumprod_of", "formulation_of"]

OUTPUTS = {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v", "flow_prediction": "flow"}
"""diffusers' names of predictions, and those of ``fewstep.denoiser``."""


class Formulation(ABC):
    """A process together with the conventions of the diffusers schedulers for it.

    Attributes:
        process: where the grid lives.
        prediction: one of ``fewstep.denoiser.PREDICTIONS``.
        indices: the number N of training timesteps; 0 for a network of continuous levels.
        init_noise_sigma: the standard deviation of the first latents.
    """

    process: Process
    prediction: str
    indices: int = 0
    init_noise_sigma = 1.0

    @abstractmethod
    def network_time(self, t: Tensor) -> Tensor:
        """Return what the network is fed at time ``t``: diffusers' "timestep"."""

    @abstractmethod
    def time(self, timestep: Tensor) -> Tensor:
        """Return the time at which the network is fed ``timestep`` (inverse of ``network_time``)."""

    @abstractmethod
    def level(self, t: Tensor) -> Tensor:
        """Return diffusers' "sigma" at time ``t``."""

    @abstractmethod
    def from_level(self, sigma: Tensor) -> Tensor:
        """Return the time of a custom "sigma", as pipelines pass it (for a flow: before its shift)."""

    def input_scale(self, t: Tensor) -> Tensor | None:
        """Return the factor of the network's input at ``t``; None if it takes the state as it is."""
        return None

    def x0_from(self, t: Tensor) -> Tensor:
        """Return (p, q) with x0 = p·x_t + q·(output), float64 [..., 2]."""
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        zero, one = torch.zeros_like(alpha), torch.ones_like(alpha)
        convert = PREDICTIONS[self.prediction]
        return torch.stack([convert(zero, one, alpha, sigma), convert(one, zero, alpha, sigma)], dim=-1)


class VPFormulation(Formulation):
    """DDPM's discrete schedule: fed the training index (it may be fractional), sigma is σ/α."""

    def __init__(self, process: VPDiscrete, prediction: str) -> None:
        self.process, self.prediction = process, prediction
        self.indices = process.num_train_timesteps

    def network_time(self, t: Tensor) -> Tensor:
        """Return the index N·t − 1."""
        return self.process.network_time(t)

    def time(self, timestep: Tensor) -> Tensor:
        """Return (index + 1)/N."""
        return (timestep.to(torch.float64) + 1.0) / self.indices

    def level(self, t: Tensor) -> Tensor:
        """Return σ/α."""
        return torch.exp(-self.process.half_logsnr(t))

    def from_level(self, sigma: Tensor) -> Tensor:
        """Return the time with that σ/α; up to 1 % above the last training value counts as it."""
        t = self.process.time(-sigma.log())
        top = float(self.level(torch.tensor(1.0, dtype=torch.float64)))
        if bool((sigma > 1.01 * top).any()):
            raise InputError(f"a sigma is {float(sigma.max()):g}: this model was trained up to σ/α = {top:.5g}.")
        return t.clamp(max=1.0)


class FlowFormulation(Formulation):
    """A rectified flow: fed N·t, sigma is σ = t. ``inverted`` networks (Mochi) count time from the noise on."""

    def __init__(self, process: RectifiedFlow, prediction: str, indices: int, inverted: bool = False) -> None:
        self.process, self.prediction = process, prediction
        self.indices, self.inverted = indices, inverted

    def network_time(self, t: Tensor) -> Tensor:
        """Return N·t, or N·(1 − t)."""
        return self.indices * (1.0 - t if self.inverted else t)

    def time(self, timestep: Tensor) -> Tensor:
        """Return timestep/N, or 1 − timestep/N."""
        t = timestep.to(torch.float64) / self.indices
        return 1.0 - t if self.inverted else t

    def level(self, t: Tensor) -> Tensor:
        """Return σ, or 1 − σ."""
        return 1.0 - t if self.inverted else t

    def from_level(self, sigma: Tensor) -> Tensor:
        """Return the shifted σ."""
        return self.process.from_clock(sigma)

    def x0_from(self, t: Tensor) -> Tensor:
        """Return (p, q) with x0 = p·x_t + q·(output); an inverted network puts out the opposite velocity."""
        weights = super().x0_from(t)
        return weights * torch.tensor([1.0, -1.0 if self.inverted else 1.0], dtype=torch.float64)


class EDMFormulation(Formulation):
    """EDM's preconditioned network: fed ¼·log σ (or 2·atan(σ)/π, "atan") and the scaled input, sigma is σ.

    With c_in = (σ² + σ_d²)^{−1/2}: x0 = σ_d²·c_in²·x ± σ·σ_d·c_in·(output), minus for "v_prediction".
    """

    def __init__(self, process: EDM, prediction: str, sigma_data: float, noise_conditioning: str = "log") -> None:
        if noise_conditioning not in ("log", "atan"):
            raise unknown_name("noise_conditioning", noise_conditioning, ("log", "atan"))
        if prediction not in ("epsilon", "v"):
            raise InputError("prediction_type of an EDM network is 'epsilon' or 'v_prediction'.")
        self.process, self.prediction, self.sigma_data = process, prediction, sigma_data
        self.noise_conditioning = noise_conditioning
        self.init_noise_sigma = math.sqrt(process.t_max**2 + 1.0)

    def network_time(self, t: Tensor) -> Tensor:
        """Return ¼·log σ, or 2·atan(σ)/π."""
        return 0.25 * t.log() if self.noise_conditioning == "log" else t.atan() * (2.0 / math.pi)

    def time(self, timestep: Tensor) -> Tensor:
        """Return σ = e^{4·timestep}, or tan(π·timestep/2)."""
        timestep = timestep.to(torch.float64)
        return torch.exp(4.0 * timestep) if self.noise_conditioning == "log" else torch.tan(timestep * (math.pi / 2.0))

    def level(self, t: Tensor) -> Tensor:
        """Return σ."""
        return t

    def from_level(self, sigma: Tensor) -> Tensor:
        """Return σ."""
        return sigma

    def input_scale(self, t: Tensor) -> Tensor:
        """Return c_in."""
        return (t**2 + self.sigma_data**2).rsqrt()

    def x0_from(self, t: Tensor) -> Tensor:
        """Return (c_skip, c_out)."""
        c_in = self.input_scale(t)
        sign = -1.0 if self.prediction == "v" else 1.0
        return torch.stack([(self.sigma_data * c_in) ** 2, sign * t * self.sigma_data * c_in], dim=-1)


def betas_of(config: Mapping[str, Any]) -> Tensor:
    """Return the training betas that the configuration describes, float64 [N].

    Raises:
        InputError: for an unknown ``beta_schedule``.
    """
    if config["trained_betas"] is not None:
        return torch.as_tensor(config["trained_betas"], dtype=torch.float64)
    low, high, num = config["beta_start"], config["beta_end"], config["num_train_timesteps"]
    u = torch.linspace(0.0, 1.0, num + 1, dtype=torch.float64)
    schedules = {
        "linear": lambda: torch.linspace(low, high, num, dtype=torch.float64),
        "scaled_linear": lambda: torch.linspace(low**0.5, high**0.5, num, dtype=torch.float64) ** 2,
        "exp": lambda: _from_alpha_bar(torch.exp(-12.0 * u)),
        "sigmoid": lambda: low + (high - low) * torch.linspace(-6.0, 6.0, num, dtype=torch.float64).sigmoid(),
        "squaredcos_cap_v2": lambda: cosine_betas(num),
    }
    if config["beta_schedule"] not in schedules:
        raise unknown_name("beta_schedule", config["beta_schedule"], schedules)
    return schedules[config["beta_schedule"]]()


def _from_alpha_bar(alpha_bar: Tensor) -> Tensor:
    return (1.0 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


def alphas_cumprod_of(config: Mapping[str, Any]) -> Tensor:
    """Return ᾱ = α² at the training indices, float64 [N], after every rescaling that is asked for."""
    alphas_cumprod = torch.cumprod(1.0 - betas_of(config), dim=0)
    scale = config["snr_shift_scale"]
    if scale is not None:
        alphas_cumprod = alphas_cumprod / (scale + (1.0 - scale) * alphas_cumprod)
    return _zero_terminal_snr(alphas_cumprod) if config["rescale_betas_zero_snr"] else alphas_cumprod


def formulation_of(config: Mapping[str, Any], alphas_cumprod: Tensor, mu: float | None = None) -> Formulation:
    """Return the formulation that the scheduler's configuration describes.

    Args:
        config: the scheduler's settings.
        alphas_cumprod: ᾱ at the training indices, float64.
        mu: the shift that the pipeline asks for, under dynamic shifting.

    Raises:
        InputError: for an unknown prediction, where ``mu`` is needed and missing, for a flow with EDM's levels, or for
            a variance-preserving process of one training index.
    """
    if config["prediction_type"] not in OUTPUTS:
        raise unknown_name("prediction_type", config["prediction_type"], OUTPUTS)
    prediction = OUTPUTS[config["prediction_type"]]
    is_flow = bool(config["use_flow_sigmas"]) or prediction == "flow"
    if is_flow and config["sigma_data"] is not None:
        raise InputError(
            f"a flow with sigma_data={config['sigma_data']!r} is Cosmos 2's: its pipeline computes with EDM's levels "
            "in place of a flow's, which FewStepScheduler cannot follow; keep its scheduler."
        )
    if config["sigma_data"] is not None:
        process = EDM(config["sigma_min"] or 0.002, config["sigma_max"] or 80.0)
        return EDMFormulation(process, prediction, config["sigma_data"], config["noise_conditioning"])
    if is_flow:
        flow = RectifiedFlow(_shift(config, mu))
        return FlowFormulation(flow, prediction, config["num_train_timesteps"], config["invert_sigmas"])
    if len(alphas_cumprod) < 2:
        raise InputError(
            "num_train_timesteps is 1: only a flow may have one; give 2 or more, as the model was trained."
        )
    return VPFormulation(VPDiscrete(alphas_cumprod), prediction)


def _zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """Return ᾱ stretched so that √ᾱ ends in zero (Lin et al., arXiv 2305.08891, algorithm 1), but for 2⁻²⁴ or less."""
    root = alphas_cumprod.sqrt()
    stretched = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    stretched[-1] = min(2.0**-24, 0.25 * float(stretched[-2]))
    return stretched


def _shift(config: Mapping[str, Any], mu: float | None) -> float:
    if not config["use_dynamic_shifting"]:
        return config["flow_shift"]
    if mu is None:
        raise InputError(
            "use_dynamic_shifting=True needs mu, which this pipeline does not pass: call set_timesteps(..., mu=...), "
            "or write use_dynamic_shifting=False and flow_shift=3.0."
        )
    kinds = {"exponential": math.exp, "linear": float}
    if config["time_shift_type"] not in kinds:
        raise unknown_name("time_shift_type", config["time_shift_type"], kinds)
    return kinds[config["time_shift_type"]](float(mu))

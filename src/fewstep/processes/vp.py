"""Variance-preserving processes, α² + σ² = 1: linear, cosine and discrete."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fewstep.checks import as_real, shown, whole
from fewstep.errors import InputError
from fewstep.processes.base import Process, Real, as_float64, log_alpha_at, on_host, positive

__all__ = ["VPCosine", "VPDiscrete", "VPLinear"]


class _VariancePreserving(Process):
    """α, σ and λ from log α alone: σ² = −expm1(2·log α) keeps every digit near t = 0."""

    def _log_alpha(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def alpha(self, t: Real) -> Tensor:
        """Return α_t = exp(log α_t)."""
        return self._log_alpha(as_float64(t)).exp()

    def sigma(self, t: Real) -> Tensor:
        """Return σ_t = √(1 − α_t²)."""
        return (-torch.expm1(2.0 * self._log_alpha(as_float64(t)))).sqrt() + 0.0  # no negative zero

    def half_logsnr(self, t: Real) -> Tensor:
        """Return λ_t = log α_t − ½·log(1 − α_t²)."""
        log_alpha = self._log_alpha(as_float64(t))
        return log_alpha - 0.5 * torch.log(-torch.expm1(2.0 * log_alpha))


class VPLinear(_VariancePreserving):
    r"""β(t) linear in t ∈ [0, 1]: log α_t = −¼·t²·(β_max − β_min) − ½·t·β_min.

    Source: Song et al., Score-Based Generative Modeling through SDEs (arXiv 2011.13456), eq. 32-33.

    Args:
        beta_min: β at t = 0, above 0.
        beta_max: β at t = 1, at least ``beta_min``.

    Raises:
        InputError: if a β is not finite and positive, or ``beta_max`` is below ``beta_min``.
    """

    t_min, t_max = 1e-3, 1.0
    ends_at_zero = False

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        self.beta_min = positive("beta_min", beta_min)
        self.beta_max = positive("beta_max", beta_max)
        if self.beta_max < self.beta_min:
            raise InputError(f"beta_max={beta_max} is below beta_min={beta_min}: swap the two.")

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -t * (0.25 * t * (self.beta_max - self.beta_min) + 0.5 * self.beta_min)

    def time(self, half_logsnr: Real) -> Tensor:
        """Return the positive root of the quadratic, in the form without cancellation."""
        minus_log_alpha = -log_alpha_at(as_float64(half_logsnr))
        slope = 0.5 * self.beta_min
        root = (slope**2 + (self.beta_max - self.beta_min) * minus_log_alpha).sqrt()
        return 2.0 * minus_log_alpha / (slope + root)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able data."""
        return {"name": "vp-linear", "beta_min": self.beta_min, "beta_max": self.beta_max}

    def __repr__(self) -> str:
        return f"VPLinear(beta_min={self.beta_min}, beta_max={self.beta_max})"


class VPCosine(_VariancePreserving):
    r"""α_t = cos(½π·(t + s)/(1 + s)) / cos(½π·s/(1 + s)) with s = 0.008.

    Source: Nichol & Dhariwal, Improved DDPM (arXiv 2102.09672), eq. 17. Sampling starts at
    t = 0.9946, where λ ≈ −4.8, as DPM-Solver (arXiv 2206.00927) does: at t = 1 nothing of the data is left.
    """

    t_min, t_max = 1e-3, 0.9946
    ends_at_zero = False
    _offset = 0.008
    _angle = 0.5 * math.pi / (1.0 + _offset)
    _start = _angle * _offset

    def _log_alpha(self, t: Tensor) -> Tensor:
        angle = self._angle * t
        deficit = 2.0 * (0.5 * angle).sin() ** 2 + angle.sin() * math.tan(self._start)
        near_data = torch.log1p(-deficit.clamp(max=0.5))
        near_noise = torch.log((self._angle * (1.0 - t)).sin()) - math.log(math.cos(self._start))
        return torch.where(t < 0.25, near_data, near_noise)

    def time(self, half_logsnr: Real) -> Tensor:
        """Return the inverse through tan(a + b) − tan(b), in which σ² appears as a factor."""
        half_logsnr = as_float64(half_logsnr)
        alpha, variance = log_alpha_at(half_logsnr).exp(), torch.sigmoid(-2.0 * half_logsnr)
        sin, cos = math.sin(self._start), math.cos(self._start)
        hypotenuse = (sin**2 + variance * cos**2).sqrt()
        angle = torch.atan2(variance * cos / (hypotenuse + alpha * sin), alpha * cos**2 + hypotenuse * sin)
        return angle / self._angle

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able data."""
        return {"name": "vp-cosine"}

    def __repr__(self) -> str:
        return "VPCosine()"


def cosine_betas(num: int) -> Tensor:
    """Return the cosine schedule's betas, float64 [num] (Nichol & Dhariwal, arXiv 2102.09672, eq. 17)."""
    u = torch.linspace(0.0, 1.0, num + 1, dtype=torch.float64)
    alpha_bar = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1.0 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


class VPDiscrete(_VariancePreserving):
    r"""A discrete-time DDPM schedule made continuous: t = (i + 1)/N for training index i = 0 … N−1.

    log α is interpolated linearly in t between the training times, and from log α = 0 at t = 0 to the
    first of them. A network trained on indices receives N·t − 1, which may be fractional.

    Source: Ho et al., DDPM (arXiv 2006.11239); the interpolation is DPM-Solver's (arXiv 2206.00927).

    Args:
        alphas_cumprod: ᾱ_i = α², N values that fall strictly within (0, 1).

    Raises:
        InputError: if the values are not a falling sequence within (0, 1).
    """

    t_max = 1.0

    @on_host
    def __init__(self, alphas_cumprod: Any) -> None:
        values = as_float64(alphas_cumprod).detach()
        if values.is_meta:
            raise InputError("alphas_cumprod is on the meta device, where it has no values: give it on the CPU.")
        values = values.cpu().clone()
        if values.ndim != 1 or values.numel() < 1:
            raise InputError(f"alphas_cumprod has shape {tuple(values.shape)}: give a sequence of N values.")
        falling = bool((values[1:] < values[:-1]).all())
        if not (torch.isfinite(values).all() and values.min() > 0 and values.max() < 1 and falling):
            raise InputError(
                f"alphas_cumprod runs from {values[0]:.4g} to {values[-1]:.4g}: it must fall strictly within "
                "(0, 1). A schedule rescaled to zero terminal SNR ends in 0: put a small number such as 2**-24 there."
            )
        self.alphas_cumprod = values
        self.num_train_timesteps = values.numel()
        self.t_min = 1.0 / self.num_train_timesteps
        knots = torch.cat([torch.zeros(1, dtype=torch.float64), 0.5 * values.log()])
        self._knots = {knots.device: knots}

    @classmethod
    @on_host
    def from_betas(
        cls, beta_start: float = 1e-4, beta_end: float = 0.02, num: int = 1000, schedule: str = "linear"
    ) -> VPDiscrete:
        """Return the schedule of ``num`` betas: "linear", "scaled_linear" (linear in √β) or "cosine".

        The cosine's are those of ᾱ = cos²((u + 0.008)/1.008·π/2), u from 0 to 1, at most 0.999; the ends of β do not
        count for it. Sources: Ho et al., DDPM (arXiv 2006.11239), Stable Diffusion, and Nichol & Dhariwal
        (arXiv 2102.09672).

        Raises:
            InputError: if a β is outside (0, 1) or the schedule is none of the three.
        """
        first, last = as_real(beta_start), as_real(beta_end)
        if first is None or last is None or not (0 < first < 1 and 0 < last < 1):
            raise InputError(
                f"beta_start={shown(beta_start)}, beta_end={shown(beta_end)}: give values between 0 and 1."
            )
        num = whole("num", num, 1, 1_000_000)
        powers = {"linear": 1.0, "scaled_linear": 2.0}
        if schedule == "cosine":
            return cls(torch.cumprod(1.0 - cosine_betas(num), dim=0))
        if not isinstance(schedule, str) or schedule not in powers:
            raise InputError(f"schedule is {shown(schedule)}: write 'linear', 'scaled_linear' or 'cosine'.")
        power = powers[schedule]
        betas = torch.linspace(first ** (1 / power), last ** (1 / power), num, dtype=torch.float64) ** power
        return cls(torch.cumprod(1.0 - betas, dim=0))

    def _knots_on(self, device: torch.device) -> Tensor:
        """Return log α at the training times, copied to each device once."""
        if device not in self._knots:
            self._knots[device] = self._knots[torch.device("cpu")].to(device)
        return self._knots[device]

    def __getstate__(self) -> dict[str, Any]:
        cpu = torch.device("cpu")
        return {**self.__dict__, "_knots": {cpu: self._knots[cpu]}}

    def _log_alpha(self, t: Tensor) -> Tensor:
        position = t * self.num_train_timesteps
        left = position.detach().floor().long().clamp(0, self.num_train_timesteps - 1)
        knots = self._knots_on(t.device)
        below, above = knots.take(left), knots.take(left + 1)  # knots[left] would wait for the device at a single t.
        return below + (position - left) * (above - below)

    def time(self, half_logsnr: Real) -> Tensor:
        """Return the inverse of the interpolation; below the last training value it is extrapolated."""
        log_alpha = log_alpha_at(as_float64(half_logsnr))
        knots = self._knots_on(log_alpha.device)
        left = torch.searchsorted(-knots, -log_alpha.detach().contiguous(), right=True) - 1
        left = left.clamp(0, self.num_train_timesteps - 1)
        below, above = knots.take(left), knots.take(left + 1)
        fraction = (log_alpha - below) / (above - below)
        return (left + fraction) / self.num_train_timesteps

    def network_time(self, t: Tensor) -> Tensor:
        """Return the training index N·t − 1, which may be fractional."""
        return as_float64(t) * self.num_train_timesteps - 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able data."""
        return {"name": "vp-discrete", "alphas_cumprod": self.alphas_cumprod.tolist()}

    def __repr__(self) -> str:
        first, last = self.alphas_cumprod[0], self.alphas_cumprod[-1]
        return f"VPDiscrete(N={self.num_train_timesteps}, alphas_cumprod={first:.6g}…{last:.6g})"

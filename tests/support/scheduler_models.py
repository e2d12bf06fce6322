"""Networks with closed forms behind a scheduler's interface, and the loop that every pipeline has."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FLOW = {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}
PREDICTIONS = {
    "epsilon": {"prediction_type": "epsilon"},
    "v_prediction": {"prediction_type": "v_prediction"},
    "sample": {"prediction_type": "sample"},
    "flow_prediction": FLOW,
}


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def data_prediction(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """A smooth D: that of Gaussian data of deviation 0.5, bent a little."""
    linear = 0.25 * alpha * x / (0.25 * alpha**2 + sigma**2)
    return linear + 0.3 * sigma * torch.tanh(x)


def output(x: Tensor, sigma: Tensor, prediction: str, D: Callable = data_prediction) -> Tensor:
    """What a network of that prediction puts out at diffusers' ``sigma``, in float64 and then x's dtype."""
    s, x64 = torch.as_tensor(sigma).double(), x.double()
    alpha, sigma = (1 - s, s) if prediction == "flow_prediction" else (1 / (1 + s**2).sqrt(), s / (1 + s**2).sqrt())
    x0 = D(x64, alpha, sigma)
    eps = (x64 - alpha * x0) / sigma
    kinds = {"epsilon": eps, "sample": x0, "v_prediction": alpha * eps - sigma * x0, "flow_prediction": eps - x0}
    return kinds[prediction].to(x.dtype)


def denoise(scheduler, x: Tensor, steps: int | None = None, D: Callable = data_prediction, **call) -> Tensor:
    """The loop of a pipeline; ``call`` goes to ``step``, but for lists, which go to ``set_timesteps``."""
    lists = {name: call.pop(name) for name in ("timesteps", "sigmas", "mu") if name in call}
    scheduler.set_timesteps(steps, **lists) if steps else scheduler.set_timesteps(**lists)
    for i, t in enumerate(scheduler.timesteps):
        model_output = output(x, scheduler.sigmas[i], scheduler.config.prediction_type, D)
        x = scheduler.step(model_output, t, x, **call).prev_sample
    return x

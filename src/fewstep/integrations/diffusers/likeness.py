"""The likeness of a network's output to noise, at two levels, which tells what the network predicts."""

from __future__ import annotations

import copy
import inspect
import math
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch import Tensor

from fewstep.errors import InputError, reason_of
from fewstep.integrations.diffusers.observed import COUNT, Observed
from fewstep.integrations.diffusers.one_call import OneCall
from fewstep.integrations.diffusers.origin import config_of

__all__ = ["Likeness", "likeness"]

LOW = 0.1
"""σ/α of the second level."""
OF_NOISE = 0.5
"""The least κ of a prediction of noise at the noisiest time."""
OF_V, OF_X_0 = 2.0, 1.2
"""The least κ of v and the largest one of x_0 at the second level."""


@dataclass(frozen=True)
class Likeness:
    r"""The parts κ = ⟨output, x_t⟩/⟨x_t, x_t⟩ of the state in what a network makes of it, at two levels.

    At the noisiest time x_t is nearly all noise: in a network's prediction of it κ is 1, as in a flow's ε − x_0; in v
    and x_0 there is next to none.

    At low noise, x_t = σ·η is a flat grey picture under noise. There κ of a prediction of x_0 is that of
    D = E[x_0 | x_t], from 0 to 1/α, since D keeps a fraction f = α·κ_D of the noise: for Gaussian data of covariance Σ,
    D = α·Σ·(α²·Σ + σ²)^{−1}·x_t around the mean. Of v = (α·x_t − D)/σ it is (α − κ_D)/σ, nearly (1 − f)·α/σ: ten where
    the data are smooth (f ≈ 0), and above 2 unless nearly every direction of the data varies more than the noise
    (f > 0.8, as of white noise itself), where the two cannot be told apart.

    Attributes:
        high: at the noisiest time.
        low: at σ/α = 0.1; None where a pipeline makes no second step.
    """

    high: float
    low: float | None

    @property
    def prediction(self) -> str | None:
        """The prediction type that it speaks for; None between v and sample."""
        if self.high >= OF_NOISE:
            return "epsilon"
        if self.low is None or OF_X_0 < self.low < OF_V:
            return None
        return "v_prediction" if self.low >= OF_V else "sample"


class _TwoLevels(OneCall):
    """A scheduler of two steps: the noisiest one, and one from σ·η at low noise."""

    twice = True
    made: dict[int, tuple[Tensor, Tensor]]

    def step(
        self, model_output: Tensor, timestep: float | Tensor, sample: Tensor, *args: Any, **kwargs: Any
    ) -> SchedulerOutput | tuple[Tensor, ...]:
        """Keep output and sample by the number of the step, and return σ·η."""
        if self.result is None:
            noise = torch.randn(sample.shape, generator=torch.Generator().manual_seed(1))
            self.result = noise * LOW / math.hypot(1.0, LOW)
        returned = super().step(model_output, timestep, sample, *args, **kwargs)
        assert self.sample is not None and self.output is not None
        number = int(float(timestep) != float(self.timesteps[0]))
        self.made = {**getattr(self, "made", {}), number: (self.sample.double(), self.output.double())}
        return returned


@torch.no_grad()
def likeness(seen: Observed) -> Likeness:
    """Return what the network's output has in common with its noise, by two steps of the pipeline.

    Args:
        seen: the pipeline, which stays as it is, and what it is called with.

    Raises:
        InputError: if the pipeline does not get through the first step.
    """
    pipe = copy.copy(seen.pipe)
    scheduler = _TwoLevels.from_config(config_of(pipe.scheduler))
    scheduler.second = seen.formulation.process.time(torch.tensor(-math.log(LOW), dtype=torch.float64))
    vars(pipe)["scheduler"] = scheduler
    vars(pipe)["_progress_bar_config"] = {"disable": True}
    parameters = inspect.signature(pipe.__call__).parameters
    fixed = {COUNT: 2, "strength": 1.0, "output_type": "latent", "generator": torch.Generator().manual_seed(0)}
    settings = {**seen.call, **{name: value for name, value in fixed.items() if name in parameters}}
    failed: Exception | None = None
    try:
        pipe(**settings)
    except Exception as error:  # What fails after the steps, such as a decoder that takes no latents, is no matter.
        failed = error
    made = getattr(scheduler, "made", {})
    if 0 not in made and failed is not None:
        raise InputError(f"{type(pipe).__name__} does not get through a step: {reason_of(failed)}") from failed
    if 0 not in made:
        raise InputError(f"{type(pipe).__name__} did not call its scheduler's first step: there is no output to see.")
    parts = {number: float((output * x).sum() / x.square().sum()) for number, (x, output) in made.items()}
    return Likeness(parts[0], parts.get(1))

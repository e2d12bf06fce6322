"""A scheduler for one network call at a given time: it keeps what ``step`` is handed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch import Tensor

from fewstep.errors import InputError
from fewstep.integrations.diffusers.formulation import formulation_of
from fewstep.integrations.diffusers.run import without_variance
from fewstep.integrations.diffusers.scheduler import FewStepScheduler
from fewstep.integrations.diffusers.timetable import Timetable, Values, as_fed
from fewstep.processes.base import on_host
from fewstep.time_grid import TimeGrid

__all__ = ["OneCall"]


class OneCall(FewStepScheduler):
    """A scheduler whose only step is at ``at``, whatever a pipeline asks ``set_timesteps`` for.

    Attributes:
        at: the time of the step; None for the process's first one, 0 for no step at all, which leaves a pipeline
            to decode the latents that it was given.
        sample, output: what ``step`` was handed: the state, and the network's output for it, guidance included, a
            learned variance cut off.
        result: what ``step`` returns in place of the sample.
        twice: whether a second step follows: what a pipeline does between steps is seen in it.
        second: the time of that step; None for half of the first one.
        handed: the samples that ``step`` was handed since ``set_timesteps``, where there are two.
    """

    at: Tensor | None = None
    sample: Tensor | None = None
    output: Tensor | None = None
    result: Tensor | None = None
    twice: bool = False
    second: Tensor | None = None
    handed: tuple[Tensor, ...] = ()
    init_noise_sigma: float

    @on_host
    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Values | None = None,
        sigmas: Values | None = None,
        mu: float | None = None,
    ) -> None:
        """Make the one step; ``mu``, under dynamic shifting, is all that is read of what is given.

        Raises:
            InputError: if timesteps are given beside sigmas, as they need not belong together.
        """
        if timesteps is not None and sigmas is not None:
            raise InputError(
                "the pipeline passes timesteps beside its sigmas, so that what its network is fed belongs to its own "
                "steps alone: it cannot be used as a model. fs.enable(pipe, steps=…) runs its own loop."
            )
        self._follow_config()
        formulation = formulation_of(self._settings, self._alphas_cumprod, mu)
        t = torch.tensor(formulation.process.t_max, dtype=torch.float64) if self.at is None else self.at
        stays = float(t) == 0.0
        first = formulation.process.t_max if stays else float(t)
        second = first / 2 if self.second is None else float(self.second)
        grid = TimeGrid(formulation.process, [first, second, 0.0] if self.twice else [first, 0.0])
        fed = as_fed(formulation, self._settings, formulation.network_time(grid.times[:-1]))
        self._formulation, self._timetable = formulation, Timetable(formulation, grid, fed)
        scale = formulation.input_scale(grid.times[:-1])
        self._input_scale = None if scale is None else scale.to(torch.float32).to(device)
        self.init_noise_sigma = 1.0
        self.timesteps, self.sigmas = fed[: 0 if stays else len(fed)].to(device), self._timetable.sigmas
        self.num_inference_steps, self.handed = len(fed), ()
        self._restart()

    def step(
        self, model_output: Tensor, timestep: float | Tensor, sample: Tensor, *args: Any, **kwargs: Any
    ) -> SchedulerOutput | tuple[Tensor, ...]:
        """Keep the output and the sample, and return the sample, or ``result``."""
        if model_output.shape != sample.shape:
            model_output = without_variance(model_output, sample)
        self.sample, self.output = sample, model_output
        if self.twice:
            self.handed += (sample,)
        following = sample if self.result is None else self.result.to(sample)
        return SchedulerOutput(prev_sample=following) if kwargs.get("return_dict", True) else (following, following)

    def x0_of(self, t: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Return (x_t, output) → x0 at ``t``, clipped or thresholded where the configuration asks for it."""
        state, out = self._formulation.x0_from(t.to("cpu")).tolist()

        def x0(x_t: Tensor, output: Tensor) -> Tensor:
            made = state * x_t + out * output.to(x_t.dtype)
            return made if self._limit is None else self._limit(x_t)(made)

        return x0

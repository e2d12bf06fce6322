"""The process behind the times that a pipeline's own scheduler feeds its network."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

from diffusers import CMStochasticIterativeScheduler, SchedulerMixin
from torch import Tensor

from fewstep.errors import InputError
from fewstep.integrations.diffusers.origin import config_of
from fewstep.integrations.diffusers.scheduler import FewStepScheduler
from fewstep.processes import EDM, Process

__all__ = ["NetworkTimes", "network_times"]


class NetworkTimes(NamedTuple):
    """A process, and the map from its t to what the network is fed; None where they are not needed."""

    process: Process | None
    network_time: Callable[[Tensor], Tensor] | None


def network_times(scheduler: SchedulerMixin) -> NetworkTimes:
    """Return the process of a scheduler and what it feeds the network.

    Consistency models (Song et al., arXiv 2303.01469) are of EDM's process and fed 250·log σ by their scheduler.

    Raises:
        InputError: if its process is not known here.
    """
    if isinstance(scheduler, CMStochasticIterativeScheduler):
        process = EDM(scheduler.config.sigma_min, scheduler.config.sigma_max)
        return NetworkTimes(process, lambda t: 250.0 * t.log())
    if not isinstance(scheduler, FewStepScheduler):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scheduler = FewStepScheduler.from_config(config_of(scheduler))
        except InputError as error:
            raise InputError(
                f"ρ depends on σ, and what {type(scheduler).__name__} feeds the network for a σ is not known here: "
                "give a profile without sigma_window and sigma_weight."
            ) from error
    return NetworkTimes(scheduler.formulation.process, scheduler.formulation.network_time)

"""Diffusers' schedulers on a fewstep model, as peers in a comparison."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from torch import Tensor

from fewstep.denoiser import DataPredictor, over_tensors
from fewstep.errors import InputError, unknown_name
from fewstep.executor.noise import STEPS, NoiseSource, seeded_generators
from fewstep.processes import Process, VPDiscrete

if TYPE_CHECKING:
    from fewstep.models.model import Conditions, Model
from fewstep.unwrap import innermost_denoiser

__all__ = ["PEERS", "Peer"]

PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "deis": ("DEISMultistepScheduler", {}),
    "dpmpp2": ("DPMSolverMultistepScheduler", {"solver_order": 2}),
    "dpmpp2_karras": ("DPMSolverMultistepScheduler", {"solver_order": 2, "use_karras_sigmas": True}),
    "dpmpp3": ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    "sa": ("SASolverScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "unipc_karras": ("UniPCMultistepScheduler", {"use_karras_sigmas": True}),
}
"""The class and the settings that differ from its defaults."""
OUTPUTS: dict[str, tuple[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]]] = {
    "epsilon": ("epsilon", lambda x0, x, alpha, sigma: (x - alpha * x0) / sigma),
    "v": ("v_prediction", lambda x0, x, alpha, sigma: (alpha * x - x0) / sigma),
}
"""By prediction: diffusers' name for it, and the output of a network whose data prediction is x0."""


@dataclass(frozen=True)
class Peer:
    """A scheduler of diffusers as it comes, with the timesteps it chooses itself.

    The network is asked through the model's data prediction D at the scheduler's whole timesteps, and the scheduler is
    given what the network put out, ε or v: where it rounds timesteps but not its levels (under use_karras_sigmas) it
    makes another x0 of it. From other networks it is given D, as "sample". The initial noise of a seed is that of
    ``Model.draw``; SASolver draws the noise of its steps from one generator for each sample, so that no sample depends
    on its batch.

    Args:
        name: one of ``PEERS``.
        steps: the number of network calls.
        process: the model's.

    Raises:
        InputError: if there is no such peer, or the process is no ``VPDiscrete``: these schedulers are made for it.
    """

    name: str
    steps: int
    process: Process

    def __post_init__(self) -> None:
        if self.name not in PEERS:
            raise unknown_name("peer", self.name, PEERS)
        if not isinstance(self.process, VPDiscrete):
            raise InputError(
                f"--peers needs a model trained on the steps of a variance-preserving schedule, not on "
                f"{self.process!r}: leave --peers out."
            )

    @property
    def nfe(self) -> int:
        """The network calls of one sample."""
        return self.steps

    @property
    def stochastic(self) -> bool:
        """Whether noise is added on the way."""
        return self.name == "sa"

    @property
    def identity(self) -> str:
        """The scheduler's class, settings, version and schedule."""
        schedule = self.process.to_dict()
        return json.dumps([*PEERS[self.name], self.steps, diffusers.__version__, schedule])

    @property
    def levels(self) -> list[float]:
        """σ/α at each time, from noise to data."""
        return [float(sigma) for sigma in self._scheduler("sample").sigmas]

    @property
    def call_times(self) -> list[float]:
        """The time of each network call."""
        return [self._time(timestep) for timestep in self._scheduler("sample").timesteps]

    def _time(self, timestep: Tensor) -> float:
        return (float(timestep) + 1) / len(self.process.alphas_cumprod)  # type: ignore[attr-defined]

    def _scheduler(self, prediction_type: str, device: torch.device | str = "cpu") -> Any:
        kind, settings = PEERS[self.name]
        assert isinstance(self.process, VPDiscrete)
        kept = self.process.alphas_cumprod
        betas = 1.0 - kept / torch.cat([kept.new_ones(1), kept[:-1]])
        scheduler = getattr(diffusers, kind)(
            num_train_timesteps=len(kept), trained_betas=betas.tolist(), prediction_type=prediction_type, **settings
        )
        scheduler.set_timesteps(self.steps, device=device)
        return scheduler

    @torch.no_grad()
    def draw(self, model: Model, seeds: Sequence[int], conditions: Conditions = None) -> Tensor:
        """Return one image for each seed, [n, C, H, W] in [−1, 1], on the model's device.

        Raises:
            InputError: if the denoiser does not know the shape of a sample.
        """
        denoiser = model.denoiser
        if denoiser.shape is None:
            raise InputError(
                "the model does not know the shape of a sample: write fs.Denoiser(..., shape=(3, 32, 32))."
            )
        x = torch.empty(len(seeds), *denoiser.shape, device=denoiser.device)
        NoiseSource(len(seeds), denoiser.device, seeds=seeds).fill(x)
        cond = denoiser.check_cond(model.condition(conditions), len(seeds))
        cond = over_tensors(cond, lambda tensor: tensor.to(denoiser.device))
        prediction_type, output_of = OUTPUTS.get(_prediction(denoiser), ("sample", lambda x0, *_: x0))
        scheduler = self._scheduler(prediction_type, denoiser.device)
        noise = {"generator": seeded_generators(seeds, denoiser.device, STEPS)}
        for timestep in scheduler.timesteps:
            t = torch.tensor(self._time(timestep), dtype=torch.float64).to(x.device)
            x0 = denoiser(x, t, *(() if cond is None else (cond,)))
            output = output_of(x0, x, self.process.alpha(t), self.process.sigma(t))
            x = scheduler.step(output, timestep, x, **(noise if self.stochastic else {}), return_dict=False)[0]
        return model.images(x)


def _prediction(denoiser: DataPredictor) -> str:
    """Return what the network behind a denoiser predicts, guided or not; "" where it is not known."""
    return getattr(innermost_denoiser(denoiser), "prediction", "")

"""The model that is tuned: its samples and its solutions, for numbered noises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fewstep.denoiser import DataPredictor
from fewstep.errors import InputError, NonFiniteStateError
from fewstep.executor import execute
from fewstep.grids import uniform_logsnr
from fewstep.models.model import Model
from fewstep.plan import Plan
from fewstep.sampling import initial_state
from fewstep.skip import tuned
from fewstep.solvers import UniPC
from fewstep.storage import write_whole
from fewstep.tuning.conditions import ConditionRows
from fewstep.tuning.settings import Settings

__all__ = ["Noises", "Subject"]

SEARCHED, FRESH = 2_000_000_000, 3_000_000_000
"""The first seeds of the search and of the verdict: far from those that people sample with, and calibrations'."""


@dataclass(frozen=True)
class Noises:
    """Noises by number, from ``first`` to below ``last``; ``fresh`` ones are the verdict's, which no search sees."""

    first: int
    last: int
    fresh: bool = False

    @property
    def numbers(self) -> range:
        """The numbers."""
        return range(self.first, self.last)

    @property
    def seeds(self) -> range:
        """The seeds."""
        start = FRESH if self.fresh else SEARCHED
        return range(start + self.first, start + self.last)

    def parts(self, size: int) -> Iterator[Noises]:
        """Yield them in batches."""
        for first in range(self.first, self.last, size):
            yield replace(self, first=first, last=min(first + size, self.last))

    def __len__(self) -> int:
        return self.last - self.first

    def __str__(self) -> str:
        return f"{'fresh ' if self.fresh else ''}{self.first}:{self.last}"


@dataclass
class Subject:
    """A model, its conditions, and how it is called.

    Attributes:
        model: what is tuned.
        conditions: which the noises take in turn.
        batch_size: samples in a network call.
        reference_steps: calls of the solution of a noise.
        folder: where solutions are kept between runs; None: in memory only.
        name: of the search: what is in the folder of another one is not this one's.
    """

    model: Model
    conditions: ConditionRows
    batch_size: int
    reference_steps: int
    folder: Path | None = None
    name: str = ""
    _solved: dict[Noises, Tensor] = field(default_factory=dict, init=False)

    @property
    def denoiser(self) -> DataPredictor:
        """The data prediction."""
        return self.model.denoiser

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a sample.

        Raises:
            InputError: if it is not known.
        """
        if self.denoiser.shape is None:
            raise InputError(
                "the model does not know the shape of a sample: write fs.Denoiser(..., shape=(3, 32, 32))."
            )
        return self.denoiser.shape

    @torch.no_grad()
    def samples(self, settings: Settings, noises: Noises) -> Tensor:
        """Return the samples of these noises, float32 [n, …] on the host.

        Raises:
            NonFiniteStateError: if one is not finite.
        """
        with self._set(settings) as denoiser:
            return torch.cat([self._drawn(settings.plan, denoiser, part) for part in noises.parts(self.batch_size)])

    @torch.no_grad()
    def solutions(self, noises: Noises) -> Tensor:
        """Return what the ODE makes of these noises, float32 [n, …] on the host, kept from run to run."""
        missing = [one for one in noises.parts(1) if not self._known(one)]
        plan = self.solution_plan
        while missing:
            last = next((i for i in range(1, len(missing)) if missing[i].first != missing[i - 1].last), len(missing))
            run = replace(noises, first=missing[0].first, last=missing[min(last, self.batch_size) - 1].last)
            for one, made in zip(run.parts(1), self._drawn(plan, self.denoiser, run), strict=True):
                self._keep(one, made)
            missing = missing[len(run) :]
        return torch.stack([self._solved[one] for one in noises.parts(1)])

    @property
    def solution_plan(self) -> Plan:
        """The plan of the solution: third order, even in λ, to the noise-free end."""
        grid = uniform_logsnr(self.denoiser.process, self.reference_steps, end="zero")
        grid = grid.on_training_steps() if self.denoiser.integer_times else grid
        return UniPC(order=3, variant="exact").plan(grid)

    def _known(self, noise: Noises) -> bool:
        """Whether the solution of one noise is there, of this run or of one before."""
        path = self._path(noise)
        if noise not in self._solved and path is not None and path.is_file():
            try:
                made = load_file(path)["samples"]
            except (SafetensorError, KeyError, OSError):
                return False  # It is made anew.
            if made.shape == self.shape:
                self._solved[noise] = made
        return noise in self._solved

    def _keep(self, noise: Noises, solution: Tensor) -> None:
        self._solved[noise] = solution
        path = self._path(noise)
        if path is not None:
            write_whole(path, lambda part: save_file({"samples": solution.contiguous()}, part))

    def _path(self, noise: Noises) -> Path | None:
        if self.folder is None:
            return None
        name = f"{'fresh' if noise.fresh else 'solution'}-{noise.first}-{self.reference_steps}-{self.name}.safetensors"
        return self.folder / name

    def _drawn(self, plan: Plan, denoiser: DataPredictor, noises: Noises) -> Tensor:
        x_T = initial_state(plan.grid, self.shape, noises.seeds, device=denoiser.device)
        cond = self.conditions.of_noises(noises.numbers, noises.fresh)
        made = execute(plan, denoiser, x_T, seeds=noises.seeds, cond=cond).float().cpu()
        if not bool(torch.isfinite(made).all()):
            raise NonFiniteStateError(
                "a sample is not finite: try the network in float32 or bfloat16, or a smaller guidance scale."
            )
        return made

    @contextmanager
    def _set(self, settings: Settings) -> Iterator[DataPredictor]:
        """Give the denoiser with its guidance and its skips set, and set the skips back."""
        model = self.model if settings.guidance is None else self.model.guided(settings.guidance)
        if settings.skip is None:
            yield model.denoiser
            return
        with tuned(model.denoiser, profile=settings.skip):
            yield model.denoiser

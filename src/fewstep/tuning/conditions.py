"""The conditions of noises: prompts, classes or embeddings in turn, some of them kept for the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.checks import as_given
from fewstep.denoiser import DataPredictor, over_tensors
from fewstep.errors import InputError
from fewstep.models import PipelineDenoiser

__all__ = ["ConditionRows"]

KEPT = 4
"""From so many conditions on, one in ``KEPT`` is kept for the verdict."""


@dataclass(frozen=True)
class ConditionRows:
    """Conditions as rows, which noises take in turn.

    Attributes:
        rows: None for no condition, or what the denoiser takes, whose tensors are [count, …].
        count: how many there are; 0 for none.
        fresh: how many of them, the last ones, the search does not see.
    """

    rows: Any = None
    count: int = 0
    fresh: int = 0

    @classmethod
    def of(cls, denoiser: DataPredictor, cond: Any) -> ConditionRows:
        """Return the conditions that a caller gives: None for every class or prompt in turn, "none" for no condition.

        Raises:
            InputError: if tensors have different numbers of rows, or a class is out of range.
        """
        if isinstance(cond, str):
            if cond != "none":
                raise InputError(f"cond is {cond!r}: write 'none', a class number, or rows of conditions.")
            return cls()
        if cond is None:
            classes = denoiser.num_classes
            if classes is None:
                return cls()
            kept = classes // KEPT if isinstance(denoiser, PipelineDenoiser) and classes >= KEPT else 0
            return cls(torch.arange(classes), classes, kept)
        if denoiser.num_classes is not None and not isinstance(cond, (Tensor, dict)):
            cond = as_given(cond).flatten()
            denoiser.check_cond(cond, len(cond))
        counts: set[int] = set()

        def counted(value: Tensor) -> Tensor:
            counts.add(value.shape[0] if value.ndim else 1)
            return value

        over_tensors(cond, counted)
        if len(counts) > 1:
            raise InputError(f"cond has tensors of {sorted(counts)} rows: give each as many.")
        count = next(iter(counts), 1)
        return cls(cond, count, count // KEPT if count >= KEPT else 0)

    def numbers(self, noises: Sequence[int], fresh: bool) -> list[int]:
        """Return the row of each noise; those of the verdict are others, where some are kept for it."""
        if not self.count:
            return []
        if fresh and self.fresh:
            return [self.count - self.fresh + noise % self.fresh for noise in noises]
        return [noise % (self.count - self.fresh) for noise in noises]

    def of_noises(self, noises: Sequence[int], fresh: bool) -> Any:
        """Return the conditions of these noises, as the denoiser takes them."""
        if not self.count:
            return None
        chosen = torch.tensor(self.numbers(noises, fresh))

        def picked(value: Tensor) -> Tensor:
            return value[chosen.to(value.device)] if value.ndim and value.shape[0] == self.count else value

        return over_tensors(self.rows, picked)

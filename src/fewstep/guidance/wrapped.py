"""A predictor made from another one."""

from __future__ import annotations

import torch

from fewstep.denoiser import DataPredictor
from fewstep.errors import InputError

__all__ = ["STATE", "Wrapped"]

STATE = "give the state, a floating-point tensor [batch, …]"


class Wrapped(DataPredictor):
    """A predictor made from another one: process, shape and classes are the inner one's."""

    def __init__(self, inner: DataPredictor) -> None:
        if not isinstance(inner, DataPredictor):
            raise InputError(
                f"{type(self).__name__} wraps an fs.Denoiser, not {type(inner).__name__}: "
                "write fs.Denoiser(network, process, prediction) first."
            )
        self.inner = inner
        self.process, self.shape = inner.process, inner.shape
        self.integer_times = inner.integer_times

    @property
    def num_classes(self) -> int | None:  # type: ignore[override]
        """The number of the inner one's conditions, which grows where prompts are added to a pipeline's."""
        return self.inner.num_classes

    @property
    def device(self) -> torch.device:
        """Where the inner network lives."""
        return self.inner.device

    @property
    def remembers(self) -> bool:
        """Whether D depends on earlier calls of a run too."""
        return self.inner.remembers

    def evaluations(self, t: float, conditional: bool = True) -> int:
        """Return how often networks are evaluated for one D at ``t``, under a condition or not."""
        return self.inner.evaluations(t, conditional)

    @property
    def settings(self) -> str:
        """The class and its numbers as text, such as "StaticThreshold(limit=1)"."""
        numbers = [f"{name}={value:g}" for name, value in vars(self).items() if isinstance(value, float)]
        return f"{type(self).__name__}({', '.join(numbers)})"

    def __repr__(self) -> str:
        return f"{self.settings} of {self.inner!r}"

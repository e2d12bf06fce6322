"""The basis of guidance: a prediction moved away from another one, by a scale, within an interval."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.checks import as_given, as_real, flag, real, shown, tensor
from fewstep.denoiser import Condition, DataPredictor
from fewstep.errors import InputError
from fewstep.guidance.rules import Linear, Outputs, Rule, rescaled
from fewstep.guidance.wrapped import STATE, Wrapped
from fewstep.processes.base import as_float64
from fewstep.unwrap import innermost_denoiser

__all__ = ["Guided", "Interval", "Scale", "checked_interval"]

Scale = float | Tensor | Callable[[Tensor], Any]
"""A number, one for each sample (a tensor [batch]), or a function of σ/α, a 0-dimensional float64 tensor."""
Interval = tuple[float, float] | None
"""(low, high): guided where low < σ/α ≤ high; None is everywhere."""


def checked_interval(interval: Sequence[float] | None) -> Interval:
    """Return the interval of guidance as two numbers, or None.

    Raises:
        InputError: if it is not two numbers of at least 0, the lower first; the upper may be infinite.
    """
    if interval is None:
        return None
    ends = [as_real(end) for end in interval] if isinstance(interval, Sequence) else []
    if len(ends) != 2 or any(end is None or end != end for end in ends) or not 0 <= ends[0] < ends[1]:  # type: ignore[operator]
        raise InputError(f"the guidance interval is {shown(interval)}: give σ/α as (low, high), such as (0.2, 2.0).")
    return ends[0], ends[1]  # type: ignore[return-value]


class Guided(Wrapped):
    r"""What guidance methods share: the scale, where it holds, the rule, and the rescaling.

    A subclass says what the prediction is moved away from. Outside the interval, and where the scale is the number 1,
    D is the inner one, which alone is called.

    Sources: the interval is Kynkäänniemi et al., Applying Guidance in a Limited Interval Improves Sample and
    Distribution Quality in Diffusion Models (arXiv 2404.07724), eq. 5. For the interval the time is read back from its
    device in each call.
    """

    _neutral = 1.0

    def __init__(
        self,
        inner: DataPredictor,
        guidance_scale: Scale,
        *,
        interval: Sequence[float] | None = None,
        rule: Rule | None = None,
        rescale: float = 0.0,
    ) -> None:
        super().__init__(inner)
        self.guidance_scale = _checked_scale(guidance_scale)
        self.interval = checked_interval(interval)
        self.rule = Linear() if rule is None else rule
        if not isinstance(self.rule, Rule):
            raise InputError(f"rule is {shown(rule)}: give one such as fs.guidance.Projected().")
        self.rescale = real("rescale", rescale, 0.0, 1.0)
        self._past: tuple[float, Tensor] | None = None

    @abstractmethod
    def _pair(self, x_t: Tensor, t: Tensor, cond: Condition) -> tuple[Tensor, Tensor]:
        """Return the prediction and the one to move away from."""

    @abstractmethod
    def _evaluations_of_both(self, t: float, conditional: bool) -> int:
        """Return how often networks are evaluated for the two of them."""

    def _needs_both(self, conditional: bool) -> bool:
        """Return whether there is anything to move away from."""
        return True

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition = None) -> Tensor:
        """Return the guided D(x_t, t)."""
        if not isinstance(cond, (Tensor, Mapping)):
            cond = self.check_cond(cond, len(tensor("x_t", x_t, STATE)))
        if not self._needs_both(cond is not None):
            return self.inner(x_t, t, cond)
        level = None if self.interval is None and self.rule.zero_above is None else self._level(t)
        if level is not None and self._is_zero(level):
            return self._unmoved(x_t, t)
        if not self._is_guided(level):
            return self.inner(x_t, t, cond)
        good, bad = self._pair(x_t, t, cond)
        if self.rule.momentum:
            bad = good - self._averaged(good - bad, t)
        outputs = None
        if self.rescale or self.rule.zero_above is not None or not isinstance(self.rule, Linear):
            outputs = Outputs.of(self._predicted, self.process, x_t, as_float64(t))
        made = self.rule(good, bad, self._scale(t, good), outputs)
        return rescaled(made, good, self.rescale, outputs) if self.rescale else made

    @property
    def remembers(self) -> bool:
        """Whether D depends on earlier calls of a run too: under a momentum."""
        return bool(self.rule.momentum) or super().remembers

    def evaluations(self, t: float, conditional: bool = True) -> int:
        """Return how often networks are evaluated for one D at ``t``, under a condition or not."""
        t, conditional = real("t", t, 0.0), flag("conditional", conditional)
        if not self._needs_both(conditional):
            return self.inner.evaluations(t, conditional)
        level = self._level(t)
        if self._is_zero(level):
            return 0
        if not self._is_guided(level):
            return self.inner.evaluations(t, conditional)
        return self._evaluations_of_both(t, conditional)

    @property
    def spelling(self) -> float | str:
        """The scale, with its settings if there are any, as ``--guidance`` takes it; "…" is what words cannot say."""
        words = {key: _spelled(value) for key, value in self._words().items()}
        scale = self.guidance_scale if isinstance(self.guidance_scale, float) else "…"
        if not words:
            return scale
        return f"{_spelled(scale)}:" + ",".join(f"{key}={value}" for key, value in words.items())

    @property
    def settings(self) -> str:
        """The class and its settings as text, such as "ClassifierFree(guidance_scale=3, interval=0.2:2)"."""
        scale = _spelled(self.guidance_scale) if isinstance(self.guidance_scale, float) else "…"
        words = {"guidance_scale": scale, **self._words()}
        return f"{type(self).__name__}({', '.join(f'{key}={_spelled(value)}' for key, value in words.items())})"

    def _words(self) -> dict[str, Any]:
        chosen: dict[str, Any] = {} if self.interval is None else {"interval": self.interval}
        chosen.update({"rescale": self.rescale} if self.rescale else {})
        return {**chosen, **self.rule.words}

    @property
    def _predicted(self) -> str:
        return str(getattr(innermost_denoiser(self.inner), "prediction", "x0"))

    def _level(self, t: float | Tensor) -> float:
        """Return σ/α."""
        return float(torch.exp(-self.process.half_logsnr(t)))

    def _is_zero(self, level: float) -> bool:
        return self.rule.zero_above is not None and level > self.rule.zero_above

    def _is_guided(self, level: float | None) -> bool:
        if isinstance(self.guidance_scale, float) and self.guidance_scale == self._neutral:
            return False
        return self.interval is None or level is None or self.interval[0] < level <= self.interval[1]

    def _unmoved(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return D where the network's own output is 0; the flow's velocity in place of D's or EDM's."""
        predicted = self._predicted if self._predicted not in ("x0", "edm") else "flow"
        outputs = Outputs.of(predicted, self.process, x_t, as_float64(t))
        assert outputs is not None
        return outputs.x_part

    def _scale(self, t: Tensor, like: Tensor) -> float | Tensor:
        scale: Any = self.guidance_scale
        if isinstance(scale, float):
            return scale
        if callable(scale):
            scale = scale(torch.exp(-self.process.half_logsnr(as_float64(t))))
        scale = as_given(scale).to(like.device, like.dtype)
        if scale.numel() not in (1, len(like)):
            raise InputError(
                f"guidance_scale has {scale.numel()} numbers for {len(like)} samples: give one for each, or for all."
            )
        return scale.reshape(-1, *[1] * (like.ndim - 1))

    def _averaged(self, moved: Tensor, t: Tensor) -> Tensor:
        """Return the difference with the momentum of the calls before; a run begins where time does not fall."""
        time = float(t)
        past, self._past = self._past, None
        if past is not None and time < past[0] and past[1].shape == moved.shape:
            moved = moved + self.rule.momentum * past[1].to(moved)
        self._past = (time, moved.clone())
        return moved


def _checked_scale(scale: Any) -> Scale:
    if isinstance(scale, Tensor) and scale.ndim == 1 and scale.is_floating_point() and scale.numel():
        return scale
    if callable(scale) and not isinstance(scale, (type, Tensor)):
        return scale
    hint = "give a finite number, such as 2.0; a tensor [batch] of them; or a function of σ/α"
    return real("guidance_scale", scale, hint=hint)


def _spelled(value: Any) -> str:
    if isinstance(value, tuple):
        return ":".join(map(_spelled, value))
    return str(value) if isinstance(value, str) else f"{value:g}"

"""Guidance: a prediction moved away from another one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.checks import as_real, flag, real, shown, tensor, whole
from fewstep.denoiser import Condition, DataPredictor
from fewstep.errors import InputError
from fewstep.guidance.rules import Linear, Outputs, Rule, rescaled
from fewstep.guidance.wrapped import STATE, Wrapped
from fewstep.processes.base import as_float64
from fewstep.unwrap import innermost_denoiser

__all__ = ["AutoGuidance", "ClassifierFree", "ClassifierGuidance", "Guided", "Interval", "Scale", "checked_interval"]

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
        scale = torch.as_tensor(scale).to(like.device, like.dtype)
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


class ClassifierFree(Guided):
    r"""D = D_null + guidance_scale·(D_cond − D_null): classifier-free guidance in the data prediction.

    Source: Ho & Salimans, Classifier-Free Diffusion Guidance (arXiv 2207.12598). A scale of 1 is D_cond
    itself, with one call of the network; 0 is D_null. Without a condition it is the inner predictor.

    Args:
        inner: the predictor to guide.
        guidance_scale: a finite number, above 1 to strengthen the condition; a tensor [batch], one for each sample; or
            a function of σ/α.
        null_cond: the condition that means "none": a number for class labels, a tensor that expands to the
            condition's shape, or the keywords that replace the condition's.
        batched: one call on both halves (faster on accelerators), or two calls (half the memory). A tensor [1, …] is
            one for all samples. Conditions that differ in something without a batch, such as a number among the
            keywords, or that hold tensors of another length, always take two.
        interval: (low, high), guided where low < σ/α ≤ high; elsewhere D is D_cond (see ``Guided``).
        rule: how the two are combined: ``Linear`` (the formula above), ``Projected`` (APG), ``ZeroStar`` (CFG-Zero*).
        rescale: φ of ``rescaled``, from 0 (none) to 1.

    Raises:
        InputError: if the scale is not finite, or another setting is out of its range.
    """

    def __init__(
        self,
        inner: DataPredictor,
        guidance_scale: Scale,
        null_cond: Condition | int,
        *,
        batched: bool = True,
        interval: Sequence[float] | None = None,
        rule: Rule | None = None,
        rescale: float = 0.0,
    ) -> None:
        super().__init__(inner, guidance_scale, interval=interval, rule=rule, rescale=rescale)
        self.null_cond = self._checked_null(null_cond)
        self.batched = flag("batched", batched)

    def _needs_both(self, conditional: bool) -> bool:
        """Return whether there is a condition."""
        return conditional

    def _evaluations_of_both(self, t: float, conditional: bool) -> int:
        """Return how often the network is evaluated for both conditions, twice as often as for one."""
        return 2 * self.inner.evaluations(t, conditional)

    def _pair(self, x_t: Tensor, t: Tensor, cond: Condition) -> tuple[Tensor, Tensor]:
        """Return D_cond and D_null."""
        null = _like(self.null_cond, cond)
        if self.batched and _joinable(cond, null, len(x_t)):
            both = self.inner(torch.cat([x_t, x_t]), t, _joined(cond, null, len(x_t)))
            conditional, unconditional = both.chunk(2)
            return conditional, unconditional
        return self.inner(x_t, t, cond), self.inner(x_t, t, null)

    def _checked_null(self, null_cond: Any) -> Condition | int:
        """Return the null condition: a class number may be one beyond the classes, as a null class often is."""
        if null_cond is None or isinstance(null_cond, Mapping) or (isinstance(null_cond, Tensor) and null_cond.ndim):
            return null_cond
        most = None if self.num_classes is None else self.num_classes
        return whole("null_cond", null_cond, 0, most)


class AutoGuidance(Guided):
    r"""D = D_guide + guidance_scale·(D − D_guide): guidance by a worse version of the model itself.

    The guide is a smaller or less trained network for the same data and process, and is asked with the same condition,
    or none. Guidance then works without a condition too. ``inner`` may itself be under ``ClassifierFree``.

    Source: Karras et al., Guiding a Diffusion Model with a Bad Version of Itself (arXiv 2406.02507), eq. 4.

    Args:
        inner: the predictor to guide.
        guidance_scale: as of ``ClassifierFree``.
        guide: the worse predictor, of the same process.
        conditional: whether the guide is given the condition.
        interval, rule, rescale: as of ``ClassifierFree``.

    Raises:
        InputError: if the guide is of another process or shape, or a setting is out of its range.
    """

    def __init__(
        self,
        inner: DataPredictor,
        guidance_scale: Scale,
        guide: DataPredictor,
        *,
        conditional: bool = True,
        interval: Sequence[float] | None = None,
        rule: Rule | None = None,
        rescale: float = 0.0,
    ) -> None:
        super().__init__(inner, guidance_scale, interval=interval, rule=rule, rescale=rescale)
        if not isinstance(guide, DataPredictor):
            raise InputError(f"guide is {shown(guide)}: give an fs.Denoiser of the same process.")
        if guide.process != inner.process or (guide.shape and inner.shape and guide.shape != inner.shape):
            raise InputError(
                f"the guide is of {guide.process!r} and shape {guide.shape}, the model of {inner.process!r} and "
                f"{inner.shape}: they must be the same."
            )
        self.guide = guide
        self.conditional = flag("conditional", conditional)

    def _evaluations_of_both(self, t: float, conditional: bool) -> int:
        """Return how often both networks are evaluated together."""
        of_guide = self.guide.evaluations(t, conditional and self.conditional)
        return self.inner.evaluations(t, conditional) + of_guide

    def _pair(self, x_t: Tensor, t: Tensor, cond: Condition) -> tuple[Tensor, Tensor]:
        """Return D and that of the guide."""
        return self.inner(x_t, t, cond), self.guide(x_t, t, cond if self.conditional else None)


LogProbability = Callable[[Tensor, Tensor, Any], Tensor]
"""log_prob(x_t, t, cond) → log p(cond | x_t) of each sample, [batch], differentiable in x_t."""


class ClassifierGuidance(Guided):
    r"""D' = D + guidance_scale·(σ²/α)·∇_x log p(cond | x_t): guidance by a classifier of noisy samples.

    That is the score plus the scale times the gradient, which autograd takes of the user's log-probability. A scale of
    0 is the inner predictor, 1 the posterior's own score. ``log_prob`` counts as no network evaluation.

    Source: Dhariwal & Nichol, Diffusion Models Beat GANs on Image Synthesis (arXiv 2105.05233), section 4, as
    SA-Solver's public code has it (arXiv 2309.05019).

    Args:
        inner: the predictor to guide.
        guidance_scale: as of ``ClassifierFree``.
        log_prob: (x_t, t, cond) → log p(cond | x_t), [batch]; x_t is the process's state, t its time.
        interval, rule, rescale: as of ``ClassifierFree``; the pair is D' of scale 1, and D.

    Raises:
        InputError: if a setting is out of its range; when called, if ``log_prob`` does not return a number a sample, or
            one that does not depend on x_t.
    """

    _neutral = 0.0

    def __init__(
        self,
        inner: DataPredictor,
        guidance_scale: Scale,
        log_prob: LogProbability,
        *,
        interval: Sequence[float] | None = None,
        rule: Rule | None = None,
        rescale: float = 0.0,
    ) -> None:
        super().__init__(inner, guidance_scale, interval=interval, rule=rule, rescale=rescale)
        if not callable(log_prob) or isinstance(log_prob, type):
            raise InputError(f"log_prob is {shown(log_prob)}: give a function (x_t, t, cond) → log-probabilities.")
        self.log_prob = log_prob

    def _evaluations_of_both(self, t: float, conditional: bool) -> int:
        """Return how often the denoising network is evaluated."""
        return self.inner.evaluations(t, conditional)

    def _pair(self, x_t: Tensor, t: Tensor, cond: Condition) -> tuple[Tensor, Tensor]:
        """Return D' of scale 1, and D."""
        plain, t = self.inner(x_t, t, cond), as_float64(t)
        gain = self.process.sigma(t) ** 2 / self.process.alpha(t)
        return plain + gain.to(plain.device, plain.dtype) * self._gradient(x_t, t, cond), plain

    def _gradient(self, x_t: Tensor, t: Tensor, cond: Condition) -> Tensor:
        with torch.enable_grad():
            x = x_t.detach().clone().requires_grad_(True)
            made = self.log_prob(x, t, cond)
            if not isinstance(made, Tensor) or made.shape != (len(x_t),) or not made.requires_grad:
                what = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
                raise InputError(
                    f"log_prob returned {what} for {len(x_t)} samples: return a log-probability for each, [batch], "
                    "computed from x_t by autograd."
                )
            return torch.autograd.grad(made.sum(), x)[0]


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


def _like(null: Any, cond: Any) -> Any:
    """Return ``null`` in the shape of the tensors in ``cond``; keywords that ``null`` has not keep theirs."""
    if isinstance(cond, Mapping):
        nulls = null if isinstance(null, Mapping) else dict.fromkeys(cond, null)
        return {name: _like(nulls[name], value) if name in nulls else value for name, value in cond.items()}
    if not isinstance(cond, Tensor):
        return null
    if isinstance(null, Tensor):
        return null.to(device=cond.device, dtype=cond.dtype).expand_as(cond)
    return torch.full_like(cond, null)


def _joinable(cond: Any, null: Any, batch: int) -> bool:
    """Whether tensors have one entry for all samples or one for each, and what has no batch is the same in both."""
    if isinstance(cond, Mapping):
        return all(_joinable(value, null[name], batch) for name, value in cond.items())
    if isinstance(cond, Tensor) and cond.ndim:
        return len(cond) in (1, batch)
    return cond is null or (isinstance(cond, (bool, int, float, str)) and type(cond) is type(null) and cond == null)


def _joined(cond: Any, null: Any, batch: int) -> Any:
    """Return both conditions one after the other along the batch, those for all samples repeated."""
    if isinstance(cond, Mapping):
        return {name: _joined(value, null[name], batch) for name, value in cond.items()}
    if isinstance(cond, Tensor) and cond.ndim:
        return torch.cat([half.expand(batch, *half.shape[1:]) for half in (cond, null)])
    return cond

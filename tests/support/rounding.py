"""What rounding may do to a result: from the arithmetic, so that bounds hold on every processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fewstep.plan import Plan

__all__ = ["by_rows", "effect", "ridge_rounding", "rounding", "spread"]

Rounded = Callable[[Tensor], Tensor]


def rounding(count: float, size: float = 1.0, dtype: torch.dtype = torch.float64) -> float:
    """Return the most that ``count`` roundings of numbers up to ``size`` add up to, eps/2 of its size each."""
    return 0.5 * count * abs(float(size)) * torch.finfo(dtype).eps


def effect(run: Callable[[Rounded], Tensor], dtype: torch.dtype = torch.float64) -> float:
    """Return the most by which two computations of the same result in ``dtype`` differ, conditioning and all.

    Roundings are first of all linear, so their effect is that of larger ones, in proportion. ``run`` passes all that
    it computes through a function; once the function does nothing, once it changes each number by ±√eps of itself.
    The largest change of the result, times √eps, is what roundings of eps do that all differ; eight times that leaves
    room for their signs and for other orders of summation.
    """
    step = torch.finfo(dtype).eps ** 0.5
    generator = torch.Generator().manual_seed(0)

    def changed(x: Tensor) -> Tensor:
        signs = 2.0 * torch.randint(0, 2, x.shape, generator=generator, dtype=torch.float64) - 1.0
        return (x * (1.0 + step * signs)).to(x.dtype)

    return 8.0 * step * float((run(changed) - run(lambda x: x)).abs().max())


def by_rows(
    plan: Plan,
    denoiser: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    noise: Sequence[Tensor] | None = None,
    rounded: Rounded = lambda x: x,
) -> Tensor:
    """Run a plan in the plainest way: no buffer, a list of all predictions, one ``noise`` for each interval."""
    base, current, history, time, interval = x, x, [], plan.times[0], 0
    for row in plan.rows:
        if row.interval != interval:
            base, interval = current, row.interval
        if row.evaluate:
            prediction = rounded(denoiser(current, time))
            if plan.prediction == "epsilon":
                alpha, sigma = plan.process.alpha(time), plan.process.sigma(time)
                prediction = rounded(rounded(current - rounded(alpha * prediction)) / sigma)
            history.insert(0, prediction)
        elif row.analytic is not None:
            history.insert(0, rounded(row.analytic.bound(current)(current, *history[: row.analytic.past])))
        current = rounded(row.state_weight * base)
        if noise is not None:
            current = rounded(current + rounded(row.noise_scale * noise[row.interval]))
        for weight, past in zip(row.history_weights, history, strict=False):
            current = rounded(current + rounded(weight * past))
        time = plan.times[row.interval + 1]
    return current


def ridge_rounding(features: int, ridge: float) -> float:
    """Return how far roundings move what a ridge regression fits, as a part of what it is fitted to.

    With features of mean square 1, G their Gram matrix, Cholesky's factors are those of G + ridge·I + E with |E| at
    most k·(k + 1) roundings (Higham 2002, theorem 10.3). So the solution moves by (G + ridge·I)⁻¹·E·δ and the fit by
    |G^{1/2}·(G + ridge·I)⁻¹|·|E|·|δ| ≤ |E|·|δ|/(2·√ridge).
    """
    return rounding(features * (features + 1)) / (2.0 * ridge**0.5)


def spread(function: Callable[[Tensor], Tensor], at: Tensor, off: Tensor | float) -> Tensor:
    """Return how far ``function`` moves where its argument is off by ``off``, to either side."""
    return torch.maximum(*((function(at + by) - function(at)).abs() for by in (off, -off)))

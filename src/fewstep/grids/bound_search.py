"""The minimisers of the error bound: the prox-linear method, and the published trust region."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import LinearConstraint, minimize
from torch import Tensor

from fewstep.grids.bound import SAFEGUARDED, Bound
from fewstep.grids.newton import newton
from fewstep.grids.placement import Placement
from fewstep.grids.prox_linear import prox_linear

__all__ = ["prox_linear_search", "trust_region_search"]

MAIN, POLISH = 16, 8


def prox_linear_search(bound: Bound, placement: Placement, starts: Tensor) -> tuple[Tensor, int]:
    """Return the result of a finer search from the best that the prox-linear method finds from all starts at once."""

    def terms(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        made, group = bound.terms(placement.times(x))
        return made.numpy(), group.numpy()

    def values(x: np.ndarray) -> np.ndarray:
        return bound(placement.times(placement.project(x))).numpy()

    found, least, main = prox_linear(terms, placement.project, placement.variables(starts), iterations=MAIN)
    best = found[least.argmin()]
    finer, _, more = prox_linear(terms, placement.project, best[None], iterations=POLISH, gain=1e-3)
    if starts.shape[-1] - 1 <= SAFEGUARDED:
        finest, last = newton(values, finer[0])
        finer, more = placement.project(finest[None]), more + last
    return placement.times(finer), main + more


def trust_region_search(bound: Bound, placement: Placement, starts: Tensor) -> tuple[Tensor, int]:
    """Return the results of SciPy's trust-constr over λ, from uniform λ and from uniform t, as published."""
    found, iterations = [], 0
    n = placement.free
    difference = np.zeros((n + 1, n))
    difference[np.arange(n), np.arange(n)] = 1.0
    difference[np.arange(1, n + 1), np.arange(n)] = -1.0
    low = np.zeros(n + 1)
    low[0], low[-1] = placement.first, -(placement.first + placement.range)

    def steps_of(logsnr: np.ndarray) -> np.ndarray:
        """Return the steps in λ [1, n], all positive: differences may look a little beyond the constraint."""
        end = [] if placement.to_zero else [-low[-1]]
        h = np.maximum(np.diff(np.concatenate([[placement.first], logsnr, end])), 1e-6 * placement.range)
        return (h if placement.to_zero else h * placement.range / h.sum())[None]

    def objective(logsnr: np.ndarray) -> float:
        return float(bound(placement.times_of_steps(steps_of(logsnr)))[0])

    for start in placement.steps(starts[:2]):
        logsnr = placement.first + start.cumsum()[:n]
        result = minimize(objective, logsnr, method="trust-constr", constraints=[LinearConstraint(difference, low)])
        found.append(placement.times_of_steps(steps_of(result.x)))
        iterations += int(result.nit)
    return torch.cat(found), iterations

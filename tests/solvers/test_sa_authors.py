"""SA-Solver as its authors run it: their loop written out step by step, with the integrals by quadrature."""

import numpy as np
import pytest
import torch
from support.exact import GaussianMixture

import fewstep as fs

NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)
PROCESS = fs.processes.VPLinear()


def integral(value, low: float, high: float) -> float:
    """Return ∫ value(λ) dλ by Gauss-Legendre quadrature, exact to rounding for these smooth integrands."""
    half = 0.5 * (high - low)
    return half * float(np.dot(WEIGHTS, value(low + half * (NODES + 1.0))))


def basis(at: list[float], j: int):
    """Return the Lagrange polynomial that is 1 at ``at[j]`` and 0 at the others."""
    return lambda x: np.prod([(x - at[k]) / (at[j] - at[k]) for k in range(len(at)) if k != j] + [np.ones_like(x)], 0)


class Run:
    """One run of the authors' algorithm on the levels λ_0 < … < λ_N, with fixed noises."""

    def __init__(self, grid: fs.TimeGrid, model: GaussianMixture, noises: list[torch.Tensor], tau: float) -> None:
        self.grid, self.model, self.noises, self.tau, self.calls = grid, model, noises, tau, 0
        self.level = grid.half_logsnr.tolist()

    def predict(self, x: torch.Tensor, i: int) -> torch.Tensor:
        self.calls += 1
        return self.model(x, self.grid.times[i])

    def move(self, x, n: int, points: list[int], values: list[torch.Tensor], tau: float, few_step: bool):
        """Return the Adams update over interval n through ``values`` at ``points``, newest first."""
        start, end = self.level[n], self.level[n + 1]
        h, c = end - start, 1.0 + tau**2
        at = [self.level[i] for i in points]
        weights = [
            integral(lambda x, j=j: c * np.exp(c * (x - end)) * basis(at, j)(x), start, end) for j in range(len(at))
        ]
        if few_step and len(at) == 2:
            exact = (h * c - 1.0 + np.exp(-c * h)) / c**2
            # A predictor's nodes are λ_n and an older one, a corrector's λ_{n+1} and λ_n.
            shift = c * (h**2 / 2 - exact) / (at[0] - at[1])
            weights = [weights[0] + shift, weights[1] - shift]
        alpha, sigma = self.grid.alpha[n + 1], self.grid.sigma[n + 1]
        x = sigma / self.grid.sigma[n] * np.exp(-(tau**2) * h) * x
        x = x + sigma * np.sqrt(1.0 - np.exp(-2.0 * tau**2 * h)) * self.noises[n]
        return x + alpha * sum(w * v for w, v in zip(weights, values, strict=True))

    def __call__(self, x, p: int, c: int, *, pece: bool, few_step: bool):
        """Return the state after N steps, and after the denoising that follows them in the many-step form."""
        steps = len([level for level in self.level if np.isfinite(level)]) - 1
        values, points = [self.predict(x, 0)], [0]
        for step in range(1, steps + 1):
            n = step - 1
            warming = step < max(p, c - 1)
            order = min(p, step) if warming else min(p, steps - step + 1)
            nodes = min(c, step + 1) if warming else min(c, steps - step + 2)
            last = few_step and step == steps
            tau = 0.0 if last else self.tau
            made = self.move(x, n, points[:order], values[:order], tau, few_step)
            if last:
                return made
            values, points = [self.predict(made, step), *values], [step, *points]
            x = self.move(x, n, points[:nodes], values[:nodes], tau, few_step) if c else made
            if c and pece and step < steps:
                values[0] = self.predict(x, step)
        return self.predict(x, steps)


def compare(few_step: bool, steps: int, p: int, c: int, tau: float, mode: str):
    """Return (our samples, theirs, our calls, theirs)."""
    end = None if few_step else "zero"
    grid = fs.grids.uniform_logsnr(PROCESS, steps if few_step else steps + 1, end=end)
    generator = torch.Generator().manual_seed(steps)
    x, *noises = (torch.randn(32, 2, dtype=torch.float64, generator=generator) for _ in range(steps + 1))
    feed = iter(noises)
    run = Run(grid, GaussianMixture.example(PROCESS), noises, tau)
    theirs = run(x, p, c, pece=mode == "PECE", few_step=few_step)
    plan = fs.SASolver(p, c, tau=tau, few_step=few_step, mode=mode).plan(grid)
    ours = fs.execute(plan, run.model, x, noise_sampler=lambda sigma, sigma_next: next(feed))
    return ours, theirs, plan.nfe, run.calls


@pytest.mark.parametrize("steps", range(6, 21))
@pytest.mark.parametrize("mode", ["PEC", "PECE"])
@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_the_many_step_form_is_the_authors(tau, mode, steps):
    for p, c in [(3, 4), (2, 2), (4, 3), (1, 1)]:
        ours, theirs, calls, wanted = compare(False, steps, p, c, tau, mode)
        assert float((ours - theirs).abs().max()) < 1e-12
        assert calls == wanted == (steps + 2 if mode == "PEC" else 2 * steps + 1)


@pytest.mark.parametrize("steps", [6, 9, 20])
@pytest.mark.parametrize("mode", ["PEC", "PECE"])
@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_the_few_step_form_is_the_authors(tau, mode, steps):
    for p, c in [(3, 4), (2, 2), (1, 1), (3, 0)]:
        ours, theirs, calls, wanted = compare(True, steps, p, c, tau, mode)
        assert float((ours - theirs).abs().max()) < 1e-12
        assert calls == wanted

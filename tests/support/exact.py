"""Models whose data prediction has a closed form: what solvers are measured against."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

import fewstep as fs
from fewstep.plan import Plan
from fewstep.processes import Process


class GaussianMixture:
    """Equal-variance mixture in d dimensions with the exact D(x, t), usable as a denoiser."""

    def __init__(self, process: Process, means: Tensor, weights: Tensor, std: float) -> None:
        self.process, self.means, self.log_weights, self.std = process, means, weights.log(), std
        self.calls = 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        variance = (alpha * self.std) ** 2 + sigma**2
        offset = x[:, None, :] - alpha * self.means
        weight = torch.softmax(self.log_weights - 0.5 * (offset**2).sum(-1) / variance, dim=1)
        component = self.means + alpha * self.std**2 / variance * offset
        return (weight[..., None] * component).sum(1)

    @classmethod
    def example(cls, process: Process) -> GaussianMixture:
        means = torch.tensor([[1.0, 0.4], [-0.8, 0.9], [0.2, -1.1]], dtype=torch.float64)
        return cls(process, means, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), 0.35)


class Gaussian:
    """One-dimensional Gaussian data: D is affine in x, so a plan's output distribution is known exactly."""

    def __init__(self, process: Process, mean: float, std: float) -> None:
        self.process, self.mean, self.std = process, mean, std

    def affine(self, t: float) -> tuple[float, float]:
        """Return (k, m) with D(x, t) = k·x + m."""
        alpha, sigma = float(self.process.alpha(t)), float(self.process.sigma(t))
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return gain, self.mean * (1.0 - gain * alpha)

    def moments(self, t: float) -> tuple[float, float]:
        """Return the true mean and variance of x_t."""
        alpha, sigma = float(self.process.alpha(t)), float(self.process.sigma(t))
        return alpha * self.mean, alpha**2 * self.std**2 + sigma**2


def output_moments(plan: Plan, model: Gaussian) -> tuple[float, float]:
    """Return mean and variance of the plan's output from x_T ~ N(true moments): no sample is drawn.

    States and predictions are vectors of coefficients over (1, x_T, ξ_0, …, ξ_{N−1}).
    """
    size = 2 + plan.steps
    unit = torch.eye(size, dtype=torch.float64)
    base = current = unit[1]
    history: list[Tensor] = []
    time, step = float(plan.times[0]), 0
    for row in plan.rows:
        if row.interval != step:
            base, step = current, row.interval
        if row.evaluate:
            gain, offset = model.affine(time)
            prediction = gain * current + offset * unit[0]
            if plan.prediction == "epsilon":
                alpha, sigma = float(model.process.alpha(time)), float(model.process.sigma(time))
                prediction = (current - alpha * prediction) / sigma
            history.insert(0, prediction)
        current = row.state_weight * base + row.noise_scale * unit[2 + row.interval]
        for weight, past in zip(row.history_weights, history, strict=False):
            current = current + weight * past
        time = row.time
    mean, variance = model.moments(float(plan.times[0]))
    return float(current[0] + mean * current[1]), float(variance * current[1] ** 2 + (current[2:] ** 2).sum())


GridOf = Callable[[Process, int], fs.TimeGrid]


@cache
def reference(process: Process, grid_of: GridOf) -> tuple[Tensor, Tensor]:
    """Return (x_T, exact end) for 32 noises on the example mixture, by a fourth-order plan of 2000 steps."""
    noise = torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x_T = float(process.sigma(process.t_max)) * noise
    solver = fs.SASolver(4, 5, tau=0.0, lower_order_final=False)
    return x_T, fs.sample(GaussianMixture.example(process), solver, grid_of(process, 2000), x_T)


def observed_order(solver: fs.Solver, process: Process, grid_of: GridOf) -> tuple[float, float]:
    """Return (order between 160 and 320 steps, error at 320) on the example mixture; calls are counted."""
    x_T, exact = reference(process, grid_of)
    errors = []
    for steps in (160, 320):
        model = GaussianMixture.example(process)
        plan = solver.plan(grid_of(process, steps))
        got = fs.execute(plan, model, x_T)
        assert model.calls == plan.nfe
        errors.append(float((got - exact).square().mean().sqrt()))
    return math.log2(errors[0] / errors[1]), errors[1]

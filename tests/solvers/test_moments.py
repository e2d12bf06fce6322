"""SA-Solver's output distribution on Gaussian data, computed from the plan: no sample is drawn."""

import math

import pytest
import torch
from support.exact import Gaussian, output_moments

import fewstep as fs

PROCESS = fs.processes.VPLinear()


def errors(solver: fs.Solver, steps: int) -> tuple[float, float]:
    """Return the error of the mean and the relative error of the variance."""
    model = Gaussian(PROCESS, mean=0.7, std=0.4)
    plan = solver.plan(fs.grids.uniform_logsnr(PROCESS, steps))
    mean, variance = output_moments(plan, model)
    true_mean, true_variance = model.moments(float(plan.times[-1]))
    return abs(mean - true_mean), abs(variance / true_variance - 1.0)


@pytest.mark.parametrize("corrector_order", [3, 4])
@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, fs.tau.window(1.0, 0.05, 1.0)], ids=str)
@pytest.mark.parametrize("prediction", ["x0", "epsilon"])
def test_mean_and_variance_converge_to_the_truth(corrector_order, tau, prediction):
    solver = fs.SASolver(3, corrector_order, tau=tau, prediction=prediction)
    mean, variance = errors(solver, 60)
    assert variance < (6e-3 if prediction == "x0" else 2e-2)
    assert mean < 1e-3
    finer = errors(solver, 240)
    assert finer[1] < variance / 3


def test_first_order_converges_with_order_one_in_the_weak_sense():
    coarse, fine = (errors(fs.SASolver(1, 0, tau=1.0), steps)[1] for steps in (120, 240))
    assert 0.8 < math.log2(coarse / fine) < 1.2


def test_the_plan_agrees_with_drawn_samples():
    model = Gaussian(PROCESS, mean=0.7, std=0.4)
    plan = fs.SASolver(2, 2, tau=1.0).plan(fs.grids.uniform_logsnr(PROCESS, 10))
    mean, variance = output_moments(plan, model)
    start_mean, start_variance = model.moments(float(plan.times[0]))
    generator = torch.Generator().manual_seed(0)
    x_T = start_mean + start_variance**0.5 * torch.randn(200_000, dtype=torch.float64, generator=generator)

    def denoiser(x, t):
        gain, offset = model.affine(float(t))
        return gain * x + offset

    drawn = fs.execute(plan, denoiser, x_T, generator=generator)
    assert float(drawn.mean()) == pytest.approx(mean, abs=4 * (variance / 200_000) ** 0.5)
    assert float(drawn.var()) == pytest.approx(variance, rel=0.02)

"""Orders of convergence on an exact Gaussian mixture in float64, with the calls counted."""

import math

import pytest
import torch
from support.exact import GaussianMixture, observed_order

import fewstep as fs
from fewstep.grids import karras, uniform_logsnr


def sigma_spaced(process, steps):
    """Return Karras et al.'s grid, ending at t_min for every process."""
    return karras(process, steps, end=process.t_min)


@pytest.mark.parametrize(
    ("solver", "order"),
    [
        (fs.Euler(), 0.9),
        (fs.Heun(), 1.8),
        (fs.DPMSolverPP(2), 1.8),
        (fs.DPMSolverPP(3), 2.7),
        (fs.DEIS(3), 2.7),
        (fs.IPNDM(1), 0.9),
        (fs.IPNDM(4), 1.8),
        (fs.UniPC(2), 1.8),
        (fs.UniPC(3), 2.8),
        (fs.SASolver(3, 4, tau=0.0), 3.2),
        (fs.SASolver(3, 4, tau=0.0, mode="PECE"), 3.2),
    ],
    ids=repr,
)
def test_order_of_convergence(solver, order):
    measured, error = observed_order(solver, fs.processes.VPLinear(), uniform_logsnr)
    assert measured >= order
    assert error < 1e-2


@pytest.mark.parametrize("end", [0.01, 0.0])
def test_heun_in_a_flows_own_time_converges_with_order_2_from_pure_noise(end):
    process = fs.processes.RectifiedFlow(shift=2.0)
    model = GaussianMixture.example(process)
    x = torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def run(solver, steps):
        return fs.sample(model, solver, fs.grids.uniform_time(process, steps, start="noise", end=end), x)

    exact = run(fs.Heun("time"), 4000)
    errors = [float((run(fs.Heun(), steps) - exact).square().mean().sqrt()) for steps in (40, 80, 160)]
    assert math.log2(errors[0] / errors[1]) > 1.7 and math.log2(errors[1] / errors[2]) > 1.7


def test_on_a_flow_few_steps_of_heun_want_its_own_time():
    process = fs.processes.RectifiedFlow()
    model = GaussianMixture.example(process)
    x = 0.999 * torch.randn(500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grid = fs.grids.uniform_time(process, 5)
    exact = fs.sample(model, fs.UniPC(3), fs.grids.uniform_time(process, 2000), x)
    error = {
        solver: float((fs.sample(model, solver, grid, x) - exact).square().mean().sqrt())
        for solver in (fs.Heun("time"), fs.Euler(), fs.Heun("ratio"))
    }
    assert 2 * error[fs.Heun("time")] < error[fs.Euler()] < error[fs.Heun("ratio")]


@pytest.mark.parametrize("process", [fs.processes.VPLinear(), fs.processes.EDM()], ids=repr)
@pytest.mark.parametrize(
    ("solver", "order"),
    [
        (fs.DPMSolverPP(3, lower_order_final=False), 2.7),
        (fs.UniPC(3, lower_order_final=False), 3.2),
        (fs.SASolver(3, 4, tau=0.0, lower_order_final=False), 3.2),
    ],
    ids=repr,
)
def test_order_of_convergence_on_another_grid(solver, order, process):
    """Where λ takes large steps at the end, orders that fall there show: here they do not fall."""
    measured, _ = observed_order(solver, process, sigma_spaced)
    assert measured >= order


def test_the_published_third_order_row_converges_with_order_two():
    measured, _ = observed_order(fs.DPMSolverPP(3, "published"), fs.processes.VPLinear(), uniform_logsnr)
    assert 1.8 <= measured <= 2.2


@pytest.mark.parametrize("order", [2, 3, 4])
def test_weights_of_equal_steps_converge_with_order_two(order):
    """The first step is of first order, and the grid's steps in σ/α are not equal."""
    measured, _ = observed_order(fs.IPNDM(order), fs.processes.VPLinear(), uniform_logsnr)
    assert 1.8 <= measured <= 2.2

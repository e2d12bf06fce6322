"""iPNDM's weights: those of Adams-Bashforth on equal steps in σ/α."""

import pytest
import torch

import fewstep as fs


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_polynomials_in_the_noise_level_are_integrated_exactly_on_equal_steps(order):
    """With ε̂ = s^k at s = σ/α, a step of the plan adds ∫ s^k ds for every k below the order."""
    process = fs.processes.EDM(sigma_min=1.0, sigma_max=9.0)  # α = 1: s is the time
    grid = fs.TimeGrid(process, torch.arange(9.0, 0.0, -1.0))
    plan = fs.IPNDM(order).plan(grid)
    n = 5
    points = grid.times[n - torch.arange(order)]
    for k in range(order):
        added = plan.history_weights[n, :order] @ points**k
        exact = (grid.times[n + 1] ** (k + 1) - grid.times[n] ** (k + 1)) / (k + 1)
        torch.testing.assert_close(added, exact, rtol=1e-12, atol=0.0)


def test_the_order_rises_at_the_start_and_stays():
    plan = fs.IPNDM(4).plan(fs.grids.uniform_logsnr(fs.processes.VPLinear(), 7))
    assert (plan.history_weights != 0).sum(-1).tolist() == [1, 2, 3, 4, 4, 4, 4]

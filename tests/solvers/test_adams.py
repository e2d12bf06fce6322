"""The tables themselves: moments, weights and rows against fifty digits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp, mpf

import fewstep as fs
from fewstep.solvers.adams import Intervals, adams, exponential_moments, interpolation_weights


@pytest.mark.parametrize("z", [1e-8, 1e-3, 0.1, 1.0, 4.0, 20.0, 60.0])
def test_moments_to_fifty_digits(z):
    mp.dps = 50
    got = exponential_moments(torch.tensor(z, dtype=torch.float64), 6)
    for k in range(6):
        exact = mp.quad(lambda u, k=k: mpf(z) * mp.exp(mpf(z) * u) * u**k, [-1, mpf(-1) / max(1, z), 0])
        assert float(got[k]) == pytest.approx(float(exact), rel=1e-12)


@given(st.lists(st.floats(0.05, 3.0), min_size=1, max_size=4), st.floats(0.01, 8.0))
def test_weights_meet_every_moment(gaps, z):
    nodes = -torch.tensor([0.0, *gaps], dtype=torch.float64).cumsum(0)
    moments = exponential_moments(torch.tensor(z, dtype=torch.float64), len(nodes))
    weights = interpolation_weights(nodes, moments)
    for k, moment in enumerate(moments):
        assert float((weights * nodes**k).sum()) == pytest.approx(float(moment), rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("steps", [10, 200])
@pytest.mark.parametrize("tau", [0.0, 1.0])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_rows_integrate_polynomials_against_the_exponential_exactly(steps, tau, order):
    """Σ_j b_j·λ_j^k = α_end·∫ c·e^{c(λ − λ_end)}·λ^k dλ for k below the order, with λ measured from the end."""
    mp.dps = 40
    process = fs.processes.VPLinear()
    grid = fs.grids.uniform_logsnr(process, steps)
    n = torch.tensor([steps - 2])
    for offsets in (range(0, -order, -1), range(1, 1 - order, -1)):
        row = adams(Intervals(grid, n, torch.full((1,), tau, dtype=torch.float64)), offsets)
        end = grid.half_logsnr[n + 1]
        nodes = grid.half_logsnr[n[0] + torch.tensor(list(offsets))] - end
        h, c = mpf(float(grid.half_logsnr[n + 1] - grid.half_logsnr[n])), mpf(1 + tau**2)
        for k in range(order):
            exact = mp.quad(lambda s, k=k, c=c: c * mp.exp(c * s) * s**k, [-h, 0]) * mpf(float(grid.alpha[n + 1]))
            assert float((row.history_weights[0] * nodes**k).sum()) == pytest.approx(float(exact), rel=1e-8, abs=1e-14)


def test_noise_rows_integrate_polynomials_against_the_falling_exponential():
    mp.dps = 40
    grid = fs.grids.uniform_logsnr(fs.processes.VPLinear(), 12)
    n = torch.tensor([6])
    row = adams(Intervals(grid, n, torch.zeros(1, dtype=torch.float64)), [0, -1, -2], "epsilon")
    nodes = grid.half_logsnr[n[0] + torch.tensor([0, -1, -2])]
    start, end = (mpf(float(grid.half_logsnr[i])) for i in (6, 7))
    for k in range(3):
        exact = -mp.quad(lambda x, k=k: mp.exp(-x) * x**k, [start, end]) * mpf(float(grid.alpha[7]))
        assert float((row.history_weights[0] * nodes**k).sum()) == pytest.approx(float(exact), rel=1e-9)

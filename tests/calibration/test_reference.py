from __future__ import annotations

import gc
import weakref

import pytest
import torch
from support.calibration import PROCESS, Predictor, noises
from support.exact import Gaussian, GaussianMixture

import fewstep as fs
from fewstep.calibration.network import CountedNetwork
from fewstep.calibration.reference import Reference, reference_grid

PROCESSES = [
    fs.processes.VPLinear(),
    fs.processes.VPDiscrete.from_betas(),
    fs.processes.EDM(),
    fs.processes.RectifiedFlow(3.0),
]


def solved(denoiser, grid, x_T, steps=100):
    network = CountedNetwork(denoiser, None, len(x_T), 16)
    return Reference.solve(network, reference_grid(grid, steps), x_T), network


def gaussian_state(model, process, x_T, first, t):
    """The exact solution of the ODE for Gaussian data: the standardised state stays."""
    (m_0, v_0), (m_1, v_1) = model.moments(first), model.moments(t)
    return m_1 + (x_T - m_0) * (v_1 / v_0) ** 0.5


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_the_state_at_any_time_is_the_exact_one(process):
    model = Gaussian(process, 0.4, 0.6)

    def denoiser(x, t):
        gain, offset = model.affine(float(t))
        return gain * x + offset

    grid = fs.grids.uniform_logsnr(process, 5, end="zero")
    x_T = float(grid.sigma[0]) * torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    reference, network = solved(denoiser, grid, x_T)
    assert network.calls == 8 * 100
    first = float(grid.times[0])
    span = grid.half_logsnr[[0, -2]]
    for half_logsnr in torch.linspace(float(span[0]), float(span[1]), 23, dtype=torch.float64)[1:-1]:
        t = float(process.time(half_logsnr))
        exact = gaussian_state(model, process, x_T, first, t)
        torch.testing.assert_close(
            reference.state(t, torch.arange(8)), exact, rtol=0, atol=1e-4 * float(exact.abs().max())
        )


def test_dense_output_converges_with_order_four():
    process = fs.processes.VPLinear()
    model = GaussianMixture.example(process)
    grid = fs.grids.uniform_logsnr(process, 5, end="zero")
    x_T = torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    exact, _ = solved(model, grid, x_T, 1600)
    errors = []
    for steps in (50, 100):
        coarse, _ = solved(model, grid, x_T, steps)
        times = [float(process.time(half_logsnr)) for half_logsnr in (-2.03, -0.51, 0.77, 2.36)]
        which = torch.arange(32)
        errors.append(max(float((coarse.state(t, which) - exact.state(t, which)).abs().max()) for t in times))
    assert errors[1] < errors[0] / 7


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
@pytest.mark.parametrize("end", ["zero", None])
def test_the_ends_are_those_of_the_grid(process, end):
    grid = fs.grids.uniform_time(process, 6, end=end)
    fine = reference_grid(grid, 40)
    assert fine.steps == 40
    assert fine.times[0] == grid.times[0]
    assert fine.times[-1] == grid.times[-1]


def test_a_flow_may_start_at_pure_noise():
    process = fs.processes.RectifiedFlow()
    grid = fs.TimeGrid(process, [1.0, 0.7, 0.3, 0.0])
    model = GaussianMixture.example(process)
    x_T = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    reference, _ = solved(model, grid, x_T)
    exact = fs.sample(model, fs.UniPC(3), fs.TimeGrid(process, torch.linspace(1, 0, 2001).tolist()), x_T)
    torch.testing.assert_close(reference.end, exact, rtol=0, atol=1e-3)
    assert bool(torch.isfinite(reference.state(0.9995, torch.arange(8))).all())


def test_a_time_below_t_min_moves_the_reference_there():
    process = fs.processes.VPLinear()
    grid = fs.TimeGrid(process, [1.0, 0.5, 1e-4, 0.0])
    assert float(reference_grid(grid, 30).times[-2]) == 1e-4


def test_the_reference_is_freed_with_the_last_that_knows_it():
    grid = fs.grids.karras(PROCESS, 20)
    reference = Reference.solve(CountedNetwork(Predictor(PROCESS), None, 2, 2), grid, noises(grid, 2))
    reference.state(float(grid.times[1]) * 0.99, torch.arange(2))
    known = weakref.ref(reference)
    gc.disable()
    try:
        del reference
        assert known() is None
    finally:
        gc.enable()

"""Inversion: from data to noise by the solvers themselves."""

import pytest
import torch
from support.exact import Gaussian, GaussianMixture

import fewstep as fs
from fewstep.errors import InputError

PROCESSES = [
    fs.processes.EDM(),
    fs.processes.VPLinear(),
    fs.processes.VPDiscrete.from_betas(),
    fs.processes.RectifiedFlow(shift=2.0),
]
each_process = pytest.mark.parametrize("process", PROCESSES, ids=repr)


@each_process
@pytest.mark.parametrize("solver", [fs.Euler(), fs.DDIM(), fs.UniPC(3, "exact")], ids=repr)
def test_inversion_converges_to_the_exact_flow_of_gaussian_data(process, solver):
    """The exact flow is x_t = mean + √variance·z, of one z."""
    model = Gaussian(process, 0.3, 0.6)
    grids = [fs.grids.uniform_logsnr(process, steps, end=process.t_min) for steps in (40, 160)]
    (m_0, v_0), (m_1, v_1) = model.moments(process.t_min), model.moments(process.t_max)
    z = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[:, None]

    def denoiser(x, t):
        gain, offset = model.affine(float(t))
        return gain * x + offset

    exact = m_1 + v_1**0.5 * z
    errors = [
        float((fs.invert(denoiser, solver, grid, m_0 + v_0**0.5 * z) - exact).abs().max()) / v_1**0.5 for grid in grids
    ]
    order = 3 if isinstance(solver, fs.UniPC) else 1
    assert errors[1] < 2.0 * errors[0] / 4**order and errors[1] < 0.1


@each_process
def test_sampling_brings_an_inverted_state_back(process):
    model = GaussianMixture.example(process)
    grid = fs.grids.uniform_logsnr(process, 120, end=process.t_min)
    x = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise = fs.invert(model, fs.UniPC(3, "exact"), grid, x)
    assert torch.allclose(fs.sample(model, fs.UniPC(3, "exact"), grid, noise), x, atol=1e-3)


def test_euler_towards_noise_is_the_same_step_backwards():
    """x' = x + (σ' − σ)·(x − D)/σ with rising σ, as samplers without a direction take it."""
    process = fs.processes.EDM()
    model = GaussianMixture.example(process)
    grid = fs.grids.karras(process, 8, end=0.002)
    x = state = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for sigma, after in zip(grid.times.flip(0), grid.times.flip(0)[1:], strict=False):
        state = state + (after - sigma) * (state - model(state, sigma)) / sigma
    assert torch.allclose(fs.invert(model, fs.Euler(), grid, x), state, rtol=1e-9)


def test_a_flow_is_inverted_up_to_pure_noise():
    process = fs.processes.RectifiedFlow()
    grid = fs.grids.uniform_time(process, 50, start="noise", end=0.01)
    x = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = GaussianMixture.example(process)
    noise = fs.invert(model, fs.UniPC(2), grid, x)
    assert bool(torch.isfinite(noise).all())
    usual = fs.invert(model, fs.UniPC(2), fs.grids.uniform_time(process, 50, end=0.01), x)
    assert torch.allclose(noise, usual, atol=0.02)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, g: fs.invert(m, fs.UniPC(2), fs.grids.karras(g.process, 5), torch.zeros(1, 2)), "end=0.002"),
        (lambda m, g: fs.invert(m, fs.DDIM(1.0), g, torch.zeros(1, 2)), "deterministic"),
        (lambda m, g: fs.TimeGrid(g.process, g.times.flip(0)), "fs.invert"),
        (lambda m, g: fs.TimeGrid(g.process, [1.0, 0.5, 0.5]), "drop repeated"),
        (lambda m, g: fs.invert(GaussianMixture.example(PROCESSES[1]), fs.Euler(), g, torch.zeros(1, 2)), "VPLinear"),
    ],
)
def test_mistakes_are_answered(call, words):
    process = fs.processes.EDM()
    with pytest.raises(InputError, match=words):
        call(GaussianMixture.example(process), fs.grids.karras(process, 5, end=0.002))

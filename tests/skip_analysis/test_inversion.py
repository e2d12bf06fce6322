"""Inversion against the exact ODE of Gaussian data, and what tells noise from a Gaussian."""

from __future__ import annotations

import pytest
import torch
from support.exact import Gaussian

import fewstep as fs
from fewstep.inversion import NoisePredictor, TowardsNoise
from fewstep.skip_analysis import RealData, invert, noise_statistics

PROCESSES = [
    fs.processes.EDM(),
    fs.processes.VPLinear(),
    fs.processes.VPCosine(),
    fs.processes.VPDiscrete.from_betas(),
    fs.processes.RectifiedFlow(shift=2.0),
]
MEAN, STD = 0.3, 0.6


class Exact(fs.DataPredictor):
    """The denoiser of data N(MEAN, STD²)."""

    def __init__(self, process):
        self.process, self.model = process, Gaussian(process, MEAN, STD)

    def __call__(self, x_t, t, cond=None):
        gain, offset = self.model.affine(float(t))
        return gain * x_t + offset


def gaussian_data(process, samples=6, size=4):
    x_0 = MEAN + STD * torch.randn(samples, 1, size, size, generator=torch.Generator().manual_seed(1)).double()
    return RealData(Exact(process), x_0, batch_size=4)


def exact_end(data):
    """Return x_T/σ_T by the exact flow x_t = mean + √variance·z of Gaussian data."""
    process, model = data.denoiser.process, data.denoiser.model
    (_, noise, _), (_, more, _) = data.parts()
    alpha, sigma = (float(f(process.t_min)) for f in (process.alpha, process.sigma))
    start = alpha * data.x_0 + sigma * torch.cat([noise, more])
    (m_0, v_0), (m_1, v_1) = model.moments(process.t_min), model.moments(process.t_max)
    return (m_1 + (start - m_0) * (v_1 / v_0) ** 0.5) / float(process.sigma(process.t_max))


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_gaussian_data_are_inverted_but_for_the_error_of_the_solver(process):
    data = gaussian_data(process)
    errors = [float((invert(data, steps) - exact_end(data)).abs().max()) for steps in (20, 40, 160)]
    assert errors[0] < 2e-2 and errors[1] < 1e-3 and errors[2] < 1e-5


def test_inverting_and_sampling_give_the_data_back():
    process = fs.processes.EDM()
    data = gaussian_data(process)
    noise = invert(data, 80)
    grid = fs.grids.karras(process, 60, end=process.t_min)
    back = fs.sample(data.denoiser, fs.Heun(), grid, noise * float(process.sigma(process.t_max)))
    assert float((back - data.x_0).abs().max()) < 0.02  # noise of t_min = 0.002 was added


def test_an_exact_model_inverts_to_a_gaussian():
    process = fs.processes.VPDiscrete.from_betas()
    data = gaussian_data(process, samples=100, size=8)
    found = noise_statistics(invert(data, 20))
    assert abs(found.mmd) < 3 * found.chance
    assert found.variance == pytest.approx(1.0, abs=0.05) and abs(found.mean) < 0.05
    wrong = noise_statistics(1.2 * invert(data, 20) + 0.1)
    assert wrong.mmd > 5 * wrong.chance


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_noise_and_data_are_exchanged(process):
    turned = TowardsNoise(process)
    times = torch.linspace(0.0, turned.t_max, 7, dtype=torch.float64)
    own = process.t_max - times
    assert torch.equal(turned.alpha(times), process.sigma(own)) and torch.equal(turned.sigma(times), process.alpha(own))
    torch.testing.assert_close(turned.time(turned.half_logsnr(times)), times, rtol=1e-9, atol=1e-9)
    x, t = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)), times[3]
    exact = Exact(process)
    noise = NoisePredictor(exact)(x, t)
    back = process.alpha(own[3]) * exact(x, own[3]) + process.sigma(own[3]) * noise
    torch.testing.assert_close(back, x)


def test_every_step_is_a_call():
    told = []
    data = RealData(Exact(fs.processes.EDM()), torch.zeros(5, 1, 2, 2), batch_size=2, progress=lambda: told.append(1))
    invert(data, 5)
    assert len(told) == 3 * 5


def test_moments_tell_what_is_wrong_with_noise():
    generator = torch.Generator().manual_seed(5)
    plain = torch.randn(60, 1, 16, 16, generator=generator)
    good = noise_statistics(plain)
    assert max(map(abs, (good.mean, good.variance - 1, good.kurtosis, good.neighbours))) < 0.06
    assert abs(good.mmd) < 4 * good.chance
    uniform = noise_statistics((torch.rand(60, 1, 16, 16, generator=generator) - 0.5) * 12**0.5)
    assert uniform.kurtosis == pytest.approx(-1.2, abs=0.05) and uniform.variance == pytest.approx(1, abs=0.05)
    smooth = noise_statistics((plain + plain.roll(1, -1)) / 2**0.5)
    assert smooth.neighbours == pytest.approx(0.5, abs=0.05)
    assert noise_statistics(plain) == good


def test_mistakes():
    with pytest.raises(ValueError, match="at least 2"):
        noise_statistics(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="steps is 0"):
        invert(gaussian_data(fs.processes.EDM()), 0)

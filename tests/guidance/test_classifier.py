"""Classifier guidance against the exact posterior of Gaussian data."""

import pytest
import torch

import fewstep as fs
from fewstep.errors import InputError
from fewstep.guidance import ClassifierGuidance

PROCESSES = [fs.processes.VPLinear(), fs.processes.RectifiedFlow(), fs.processes.EDM()]
PRIOR, NOISE = 2.0, 0.5
"""Variance of the data, and of a measurement y of them."""


def gaussian(process):
    """Return D of data N(0, PRIOR)."""

    def exact(x, t):
        t = t[:, None]  # A network is given one for each sample.
        alpha, sigma = process.alpha(t), process.sigma(t)
        return alpha * PRIOR * x / (alpha**2 * PRIOR + sigma**2)

    return fs.Denoiser(exact, process, "x0", network_time=lambda t: t)


def log_likelihood(process):
    """Return log p(y | x_t), with y = x_0 + noise: Gaussian, of D and of the variance of x_0 given x_t."""

    def log_prob(x, t, y):
        alpha, sigma = process.alpha(t), process.sigma(t)
        mean = alpha * PRIOR * x / (alpha**2 * PRIOR + sigma**2)
        variance = PRIOR * sigma**2 / (alpha**2 * PRIOR + sigma**2) + NOISE
        return (-0.5 * (y["y"] - mean) ** 2 / variance).sum(1)

    return log_prob


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_it_is_the_denoiser_of_the_posterior(process):
    """Bayes: data N(0, s²) measured as y have the posterior N(m, v), whose D is known."""
    inner = gaussian(process)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plain = fs.Denoiser(lambda x, t, y: inner.network(x, t), process, "x0", network_time=lambda t: t)
    guided = ClassifierGuidance(plain, 1.0, log_likelihood(process))
    v = 1.0 / (1.0 / PRIOR + 1.0 / NOISE)
    m = v * y / NOISE
    for time in (0.9, 0.4, 0.05):
        t = torch.tensor(time, dtype=torch.float64)
        alpha, sigma = process.alpha(t), process.sigma(t)
        exact = m + alpha * v * (x - alpha * m) / (alpha**2 * v + sigma**2)
        torch.testing.assert_close(guided(x, t, {"y": y}), exact, rtol=1e-10, atol=1e-10)
        off = ClassifierGuidance(plain, 0.0, log_likelihood(process))
        assert torch.equal(off(x, t, {"y": y}), plain(x, t, {"y": y}))


def test_it_takes_an_interval_and_runs_in_the_executor():
    process = PROCESSES[0]
    inner, calls = gaussian(process), []

    def log_prob(x, t, cond):
        calls.append(float(t))
        return -0.5 * (x**2).sum(1)

    guided = ClassifierGuidance(inner, 2.0, log_prob, interval=(0.1, 1.0))
    grid = fs.grids.uniform_logsnr(process, 8)
    fs.sample(guided, fs.UniPC(2), grid, torch.ones(2, 3, dtype=torch.float64))
    ratio = torch.exp(-grid.half_logsnr[:-1])
    assert calls == grid.times[:-1][(ratio > 0.1) & (ratio <= 1.0)].tolist()
    assert fs.guidance.evaluations(fs.UniPC(2).plan(grid), guided) == 8


@pytest.mark.parametrize(
    "log_prob", [lambda x, t, cond: x.sum(), lambda x, t, cond: torch.zeros(2), lambda x, t, cond: None]
)
def test_mistakes_are_answered(log_prob):
    guided = ClassifierGuidance(gaussian(PROCESSES[0]), 1.0, log_prob)
    with pytest.raises(InputError, match="return a log-probability for each"):
        guided(torch.ones(2, 3), torch.tensor(0.5))
    with pytest.raises(InputError, match="log_prob is 3"):
        ClassifierGuidance(gaussian(PROCESSES[0]), 1.0, 3)

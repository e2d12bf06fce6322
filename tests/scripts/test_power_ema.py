"""Averages of weights: their profile, and averages of other lengths made of snapshots."""

import pytest
import torch
from power_ema import TRACKED, PowerAverages, combination, exponent


@pytest.mark.parametrize("length", [0.03, 0.05, 0.10, 0.2])
def test_the_exponent_gives_the_length(length):
    power = exponent(length)
    tau = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    weight = tau**power / (tau**power).sum()
    mean = (weight * tau).sum()
    assert float((weight * (tau - mean) ** 2).sum().sqrt()) == pytest.approx(length, rel=1e-4)


def profile(length, steps):
    """The weight of each step in the average at the end."""
    tau = torch.arange(steps + 1, dtype=torch.float64) / steps
    return (tau ** (exponent(length) + 1)).diff()


def test_the_average_has_the_powers_profile():
    values = torch.randn(300, generator=torch.Generator().manual_seed(0))
    averages = PowerAverages([torch.full((1,), 9.0)])
    for step, value in enumerate(values, 1):
        averages.update([value[None]], step)
    for length in TRACKED:
        expected = float((profile(length, 300) * values.double()).sum())
        assert float(averages.averages[length][0]) == pytest.approx(expected, abs=300 * 2**-24 * 9)


def test_a_checkpoint_brings_them_back():
    one, other = PowerAverages([torch.ones(2)]), PowerAverages([torch.zeros(2)])
    other.load_state_dict(one.state_dict())
    assert all(torch.equal(other.averages[length][0], torch.ones(2)) for length in TRACKED)


@pytest.mark.parametrize("length", [*TRACKED, 0.07, 0.15, 0.2])
def test_another_length_is_a_sum_of_snapshots(length):
    """Exact for the tracked ones; else within a tenth of the profile, by sixteen snapshots of two averages."""
    steps = [50 * n for n in range(1, 17)]
    kept = [(step, tracked) for step in steps for tracked in TRACKED]
    made = torch.zeros(800, dtype=torch.float64)
    for weight, (step, tracked) in zip(combination(kept, length, 800), kept, strict=True):
        made[:step] += weight * profile(tracked, step)
    expected = profile(length, 800)
    assert float((made - expected).norm() / expected.norm()) < (1e-3 if length in TRACKED else 0.1)
    assert float(made.sum()) == pytest.approx(1.0, abs=0.02)

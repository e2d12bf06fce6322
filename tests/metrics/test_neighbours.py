"""KID, MMD and PRDC against brute force and closed forms."""

import math

import pytest
import torch
from support.waiting import each_device, needs_gpu

from fewstep.errors import InputError
from fewstep.metrics import neighbours
from fewstep.metrics.neighbours import cmmd, kid, mmd, prdc


def normal(count: int, size: int = 3, seed: int = 0, mean: float = 0.0) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed)) + mean


def test_kid_of_whole_sets_is_the_unbiased_estimate():
    x, y = normal(30, seed=1).double(), normal(30, seed=2, mean=0.7).double()
    kernel = lambda a, b: (a @ b.T / 3 + 1) ** 3  # noqa: E731
    off = lambda k: (k.sum() - k.trace()) / (30 * 29)  # noqa: E731
    expected = off(kernel(x, x)) + off(kernel(y, y)) - 2 * kernel(x, y).mean()
    mean, deviation = kid(x, y, subsets=3)
    assert mean == pytest.approx(float(expected), rel=1e-6)
    assert deviation == pytest.approx(0.0, abs=1e-9)


def test_kid_repeats_and_leaves_the_random_state_alone():
    x, y = normal(60, seed=1), normal(80, seed=2)
    before = torch.get_rng_state()
    assert kid(x, y, subset_size=20) == kid(x, y, subset_size=20)
    assert torch.equal(torch.get_rng_state(), before)


@needs_gpu
def test_kid_on_a_gpu_leaves_its_random_state_alone():
    before = torch.cuda.get_rng_state()
    kid(normal(60, seed=1).cuda(), normal(80, seed=2), subset_size=20)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_cmmd_is_the_mean_over_all_pairs_of_features_of_unit_length():
    x, y = normal(20, seed=1).double(), normal(30, seed=2, mean=0.7).double()

    def kernel(a, b):
        return (torch.cdist(a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)) ** 2 / -200).exp()

    expected = 1000 * float(kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean())
    assert cmmd(x, y) == pytest.approx(expected, abs=1e-10)
    assert cmmd(x, x) == 0.0 and cmmd(3.0 * x, y) == pytest.approx(cmmd(x, y), abs=1e-10)


def test_cmmd_of_two_directions_is_known():
    """All of one set at one point and all of the other at another: 2·(1 − k), 1000 times."""
    x, y = torch.tensor([[1.0, 0.0]]).repeat(3, 1), torch.tensor([[0.0, 2.0]]).repeat(4, 1)
    assert cmmd(x, y) == pytest.approx(2000 * -math.expm1(-2 / 200), rel=1e-12)


def test_cmmd_needs_directions():
    with pytest.raises(InputError, match="zero throughout"):
        cmmd(torch.zeros(3, 2), torch.ones(3, 2))


METRICS = {"cmmd": cmmd, "kid": kid, "mmd": mmd, "prdc": prdc}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("double", [True, False], ids=["float64", "no-float64"])
@each_device
def test_metrics_are_the_same_on_each_device(metric, double, device, monkeypatch):
    """In float64 sums in another order differ by 10⁻¹⁶·10⁶ terms at most; counts differ in no term."""
    if not double:
        monkeypatch.setattr(neighbours, "_has_float64", lambda device: False)
    x, y = normal(300, 8, seed=1), normal(400, 8, seed=2, mean=0.3)
    there = METRICS[metric](x.to(device), y)
    assert there == pytest.approx(METRICS[metric](x, y), abs=1e-10)


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_are_the_hosts_under_another_default_device(metric):
    x, y = normal(60, 8, seed=1), normal(80, 8, seed=2)
    expected = METRICS[metric](x, y)
    with torch.device("meta"):
        assert METRICS[metric](x, y) == expected


def test_float64_is_asked_of_the_device():
    assert neighbours._has_float64(torch.device("cpu"))
    if torch.backends.mps.is_available():
        assert not neighbours._has_float64(torch.device("mps"))


def test_mmd_is_that_of_two_gaussians():
    """For unit Gaussians a distance m apart and kernel width s, MMD² = 2(1 + 2/s²)^{−d/2}·(1 − e^{−m²/2(s² + 2)})."""
    reference = normal(1500, 2, seed=1)
    width = float(torch.pdist(reference[:1000]).median())
    apart = 2 * (1 + 2 / width**2) ** -1 * (1 - math.exp(-2 / (2 * (width**2 + 2))))  # the mean moves by (1, 1)
    assert mmd(normal(1500, 2, seed=2, mean=1.0), reference) == pytest.approx(apart, rel=0.1)
    assert abs(mmd(normal(1500, 2, seed=3), reference)) < 0.005


def test_prdc_against_the_definition():
    x, y = normal(40, 2, seed=1), normal(40, 2, seed=2, mean=0.8)
    k = 4

    def radius(points, i):
        return sorted(float((points[i] - p).norm()) for p in points)[k]

    ball_x, ball_y = ([radius(s, i) for i in range(40)] for s in (x, y))
    inside = [[float((x[i] - y[j]).norm()) < ball_y[j] for j in range(40)] for i in range(40)]
    expected = {
        "precision": sum(map(any, inside)) / 40,
        "recall": sum(any(float((y[j] - x[i]).norm()) < ball_x[i] for i in range(40)) for j in range(40)) / 40,
        "density": sum(map(sum, inside)) / (k * 40),
        "coverage": sum(any(inside[i][j] for i in range(40)) for j in range(40)) / 40,
    }
    assert prdc(x, y, nearest=k) == pytest.approx(expected)


def test_prdc_of_extremes():
    x = normal(50, 4)
    assert prdc(x, x) == pytest.approx({"precision": 1, "recall": 1, "density": 1, "coverage": 1}, abs=0.25)
    assert prdc(x, x + 100.0) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


@pytest.mark.parametrize("metric", [kid, mmd, prdc])
def test_mistakes_are_answered(metric):
    with pytest.raises(InputError, match="at least 2"):
        metric(normal(1), normal(9))
    with pytest.raises(InputError, match="2 and 3 dimensions"):
        metric(normal(9, 2), normal(9, 3))

"""Streaming moments and the Fréchet distance against closed forms and two independent implementations."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewstep.errors import InputError
from fewstep.metrics import Moments, features, frechet_distance, from_uint8, moments_of


def drawn(count: int, size: int, seed: int, offset: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(size, size, generator=generator)
    return torch.randn(count, size, generator=generator) @ mix + offset


@given(st.lists(st.integers(0, 7), min_size=2, max_size=6).filter(lambda sizes: sum(sizes) >= 2))
def test_moments_do_not_depend_on_the_batches(sizes):
    rows = drawn(sum(sizes), 3, 0, offset=1e4).double()
    streamed = moments_of(rows.split(sizes))
    assert streamed.count == len(rows)
    assert torch.allclose(streamed.mean, rows.mean(0), rtol=1e-13)
    assert torch.allclose(streamed.covariance, torch.cov(rows.T), rtol=1e-8, atol=1e-8)


def test_equal_covariances_leave_the_squared_distance_of_the_means():
    rows = drawn(50, 4, 0).double()
    assert frechet_distance(rows, rows + torch.tensor([3.0, 0.0, 4.0, 0.0])) == pytest.approx(25.0, rel=1e-9)
    assert frechet_distance(rows, rows) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(rows, 2.0 * rows) == pytest.approx(  # (2 − 1)²·tr Σ + |μ|²
        float(torch.cov(rows.T).trace() + rows.mean(0).square().sum()), rel=1e-9
    )


def test_a_second_implementation_agrees():
    """The textbook formula in numpy and scipy, on the embedded features of random pictures."""
    generator = np.random.default_rng(0)
    smooth, rough = (
        generator.integers(0, 90, (300, 28, 28, 1), np.uint8),
        generator.integers(0, 255, (400, 28, 28, 1), np.uint8),
    )
    extractor = features("fashion-mnist")
    one, other = (extractor(from_uint8(images)) for images in (smooth, rough))
    x, y = one.double().numpy(), other.double().numpy()
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(a @ b).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-3)


def test_torchmetrics_agrees():
    from torchmetrics.image.fid import FrechetInceptionDistance

    one, other = drawn(200, 6, 1), drawn(300, 6, 2, offset=0.5)
    identity = torch.nn.Identity()
    identity.num_features = 6
    metric = FrechetInceptionDistance(feature=identity, normalize=True)
    metric.update(one, real=True)
    metric.update(other, real=False)
    assert frechet_distance(one, other) == pytest.approx(float(metric.compute()), rel=1e-4)


def test_statistics_come_back_from_a_file(tmp_path):
    rows = drawn(20, 3, 0)
    made = moments_of(rows, "some@1234")
    made.save(tmp_path / "s.npz")
    read = Moments.load(tmp_path / "s.npz")
    assert (read.features, read.count) == ("some@1234", 20)
    assert torch.equal(read.mean, made.mean) and torch.allclose(read.covariance, made.covariance, rtol=1e-14)
    (tmp_path / "s.npz").write_bytes(b"PK\3\4 broken")
    for name in ("s.npz", "missing.npz"):
        with pytest.raises(InputError, match="cannot be read"):
            Moments.load(tmp_path / name)


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda: frechet_distance(drawn(5, 3, 0), drawn(5, 4, 0)), "3 and 4 dimensions"),
        (lambda: frechet_distance(drawn(5, 3, 0), drawn(1, 3, 0)), "at least 2"),
        (lambda: frechet_distance(torch.full((3, 2), torch.nan), drawn(5, 2, 0)), "not finite"),
        (lambda: frechet_distance(torch.zeros(3, 0), drawn(5, 2, 0)), r"shape \(3, 0\): give \[n, d\]"),
        (lambda: frechet_distance(moments_of(drawn(5, 2, 0), "a@1"), moments_of(drawn(5, 2, 0), "b@1")), "differ"),
        (lambda: moments_of([drawn(5, 2, 0), drawn(5, 3, 0)]), r"give \[n, 2\]"),
    ],
)
def test_mistakes_are_answered(call, answer):
    with pytest.raises(InputError, match=answer):
        call()

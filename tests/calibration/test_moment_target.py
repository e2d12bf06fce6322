from __future__ import annotations

import pytest
import torch

from fewstep.calibration.moment_target import MomentTarget, distance
from fewstep.metrics import Moments, frechet_distance, moments_of


def features(seed, scale=(3.0, 1.0, 0.3), n=400):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, len(scale), dtype=torch.float64, generator=generator) * torch.tensor(scale)


@pytest.mark.parametrize("size", [1e-2, 1e-3])
def test_squares_of_the_changes_are_the_distance_to_second_order(size):
    wanted, way = features(0), features(1, (1.0, 1.0, 1.0))
    changes = MomentTarget(moments_of(wanted)).changes(wanted, way[None])[0]
    # The next order has one factor more of the change relative to the least deviation, 0.3.
    near = frechet_distance(wanted + size * way, wanted)
    assert size**2 * float(changes @ changes) == pytest.approx(near, rel=10 * size / 0.3)


def test_the_pull_is_minus_half_the_derivative():
    target, at, way = MomentTarget(moments_of(features(0))), features(1, (2.0, 1.5, 1.0)), features(2)
    step = 1e-4
    quotient = (distance(at + step * way, target.moments) - distance(at - step * way, target.moments)) / (2 * step)
    assert -2.0 * float((way * target.pull(at)).sum()) == pytest.approx(quotient, rel=step)


def test_nothing_pulls_where_moments_agree():
    wanted = features(0)
    # Square roots of a covariance of condition 100 keep all but two digits.
    assert float(MomentTarget(moments_of(wanted)).pull(wanted).abs().max()) < 1e-12


def test_directions_without_variance_are_compared_in_the_mean_alone():
    wanted = features(0, (2.0, 1.0, 0.0))
    target = MomentTarget(moments_of(wanted))
    assert len(target.variances) == 2
    moved = torch.zeros(1, 400, 3, dtype=torch.float64)
    moved[..., 2] = 1.0
    assert float(target.changes(wanted, moved).square().sum()) == pytest.approx(1.0)
    assert bool(torch.isfinite(target.pull(wanted)).all())


def test_few_directions_are_compared_of_many():
    moments = Moments().update(torch.eye(200, dtype=torch.float64))
    assert MomentTarget(moments).directions.shape == (200, 64)


@pytest.mark.filterwarnings("error")
def test_a_distance_of_few_samples_is_not_warned_of():
    assert distance(features(0, n=2), moments_of(features(1))) > 0.0

"""The error to a reference solution, and its interval."""

import numpy as np
import pytest
import torch

from fewstep.errors import InputError
from fewstep.metrics.error import rmse_interval, squared_errors


def test_the_rmse_and_its_interval():
    reference = torch.zeros(4, 1, 2, 2)
    samples = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    assert squared_errors(samples, reference).tolist() == [1.0, 4.0, 9.0, 16.0]
    middle, low, high = rmse_interval(squared_errors(samples, reference))
    assert middle == pytest.approx(7.5**0.5) and 1.0 <= low < middle < high <= 4.0
    assert rmse_interval(torch.full((5,), 9.0, dtype=torch.float64)) == (3.0, 3.0, 3.0)


def test_the_interval_covers_as_often_as_it_says():
    random, inside = np.random.default_rng(0), 0
    for _ in range(200):
        _, low, high = rmse_interval(torch.from_numpy(random.chisquare(3, 100)), draws=300)
        inside += low < 3**0.5 < high
    assert 0.88 * 200 <= inside <= 0.99 * 200


def test_mistakes_are_answered():
    with pytest.raises(InputError, match="pair them"):
        squared_errors(torch.zeros(2, 3), torch.zeros(3, 3))
    with pytest.raises(InputError, match="at least 1"):
        rmse_interval(torch.zeros(0))

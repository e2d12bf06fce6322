"""The inception score against its closed forms and the formula."""

import math

import pytest
import torch

from fewstep.errors import InputError
from fewstep.metrics.inception_score import inception_score


def test_sure_and_even_predictions_score_the_number_of_classes():
    logits = 200.0 * torch.eye(5).repeat(8, 1)
    assert inception_score(logits, splits=1)[0] == pytest.approx(5.0, abs=1e-9)


def test_predictions_that_are_all_the_same_score_one():
    logits = torch.tensor([[0.3, -1.0, 2.0]]).repeat(40, 1)
    assert inception_score(logits) == pytest.approx((1.0, 0.0), abs=1e-12)


def test_a_class_that_is_never_predicted_changes_nothing():
    logits = torch.cat([200.0 * torch.eye(5).repeat(8, 1), torch.full((40, 1), -2000.0)], dim=1)
    assert inception_score(logits, splits=1)[0] == pytest.approx(5.0, abs=1e-9)


def test_one_split_is_the_formula():
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = logits.softmax(1)
    expected = math.exp(float((p * (p / p.mean(0)).log()).sum(1).mean()))
    assert inception_score(logits, splits=1)[0] == pytest.approx(expected, rel=1e-12)


def test_it_repeats_and_leaves_the_random_state_alone():
    logits = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
    before = torch.get_rng_state()
    first = inception_score(logits)
    assert first == inception_score(logits) and first[1] > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_few_images_are_refused():
    with pytest.raises(InputError, match="at least 4"):
        inception_score(torch.zeros(3, 2))

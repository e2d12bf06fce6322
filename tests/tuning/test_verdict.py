"""The number of calls at which the default is as good as the winner."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fewstep.tuning.objectives import ErrorToSolution
from fewstep.tuning.verdict import equal_calls, verdict_of


def test_a_power_law_is_inverted():
    values = {n: 3.0 * n**-2.0 for n in (6, 8, 9, 12, 18)}
    assert equal_calls(values, 3.0 * 10.0**-2.0) == pytest.approx(10.0)
    assert equal_calls(values, values[6]) == 6.0 and equal_calls(values, 1.0) == 6.0
    assert equal_calls(values, 1e-9) == math.inf


def test_the_verdict():
    """Rows of a default whose squared error falls as calls⁻⁴: as good as the winner, 4 times better, at twice."""
    spread = np.random.default_rng(0).uniform(0.9, 1.1, (16, 1)).astype(np.float32)
    asked = []

    def rows(number):
        asked.append(number)
        return spread / 16.0 * 6.0**-4 if number is None else spread * float(number) ** -4

    found = verdict_of(ErrorToSolution(), "default", 6, rows, [8, 9, 12, 15, 18, 24])
    assert found.better and found.gain.value == pytest.approx(4.0)
    assert found.equal_calls == pytest.approx(12.0) and found.most == 15
    assert found.equal_low <= found.equal_calls <= found.equal_high
    assert asked == [None, 6, 8, 9, 12, 15]
    assert found.default_values[12] == pytest.approx(found.winner.value)
    assert "the default needs 12.0 calls" in str(found)


def test_nothing_better():
    rows = np.random.default_rng(1).uniform(0.5, 1.5, (8, 1)).astype(np.float32)
    found = verdict_of(ErrorToSolution(), "Euler", 6, lambda number: rows, [8])
    assert not found.better and found.equal_calls == 6.0
    assert str(found).startswith("nothing was better beyond doubt than the default, Euler")

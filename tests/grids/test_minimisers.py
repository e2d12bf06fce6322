"""The minimisers behind optimised time steps, on problems whose answers are known."""

import numpy as np
import pytest

from fewstep.grids.newton import newton
from fewstep.grids.prox_linear import prox_linear


def test_newton_solves_a_quadratic_in_one_move():
    matrix = np.array([[2.0, 0.6, 0.1], [0.6, 1.0, -0.3], [0.1, -0.3, 3.0]])
    least = np.array([0.2, -0.4, 0.1])

    def function(x):
        return 1.0 + np.einsum("bi,ij,bj->b", x - least, matrix, x - least)

    found, tried = newton(function, np.zeros(3))
    assert np.allclose(found, least, atol=1e-3) and tried <= 4


def test_newton_leaves_a_saddle_and_never_gets_worse():
    def function(x):
        return 2.0 + (x[:, 0] ** 2 - 1.0) ** 2 + x[:, 1] ** 2

    found, _ = newton(function, np.array([0.3, 0.4]), iterations=20)
    assert np.allclose(np.abs(found), [1.0, 0.0], atol=1e-2)
    found, _ = newton(lambda x: np.abs(x).sum(-1), np.array([0.3, 0.4]))
    assert np.abs(found).sum() <= 0.7


def test_prox_linear_finds_the_median_which_is_a_kink():
    points = np.array([-3.0, 0.5, 4.0])

    def terms(x):
        return x - points, np.eye(3)

    found, least, _ = prox_linear(terms, lambda x: x, np.array([[-5.0], [6.0]]), iterations=40, gain=1e-6)
    assert found[least.argmin(), 0] == pytest.approx(0.5, abs=1e-3)
    assert least.min() == pytest.approx(7.0, abs=1e-3)


def test_prox_linear_keeps_to_what_is_allowed():
    def terms(x):
        return x - 2.0, np.ones((2, 1))

    found, least, _ = prox_linear(terms, lambda x: np.minimum(x, 1.0), np.zeros((1, 2)), iterations=30)
    assert np.allclose(found, 1.0, atol=1e-3) and least == pytest.approx(np.sqrt(2.0), abs=1e-3)

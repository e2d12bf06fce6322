from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.calibration.least_squares import NormalEquations, choose_ridge, total, weights

RIDGES = (1e-12, 1e-6, 1e-3, 1e-1)


def problem(seed, n=16, k=4, values=30, noise=0.0):
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(k, values, dtype=torch.float64, generator=generator) for _ in range(n)]
    delta = torch.randn(k, dtype=torch.float64, generator=generator)
    residuals = [delta @ f + noise * torch.randn(values, dtype=torch.float64, generator=generator) for f in features]
    return features, residuals, delta


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_what_made_the_residual_is_found(seed):
    features, residuals, delta = problem(seed)
    equations = NormalEquations.of(zip(features, residuals, strict=True))
    torch.testing.assert_close(equations.solve(1e-14), delta, rtol=1e-9, atol=1e-9)


@given(st.integers(0, 1000), st.sampled_from([1e-8, 1e-2, 1.0]))
@settings(max_examples=20)
def test_it_is_ridge_regression(seed, ridge):
    features, residuals, _ = problem(seed, noise=0.5)
    rows = torch.cat([f.T for f in features]) / (16 * 30) ** 0.5
    right = torch.cat(residuals) / (16 * 30) ** 0.5
    stacked = torch.cat([rows, ridge**0.5 * torch.eye(4, dtype=torch.float64)])
    expected = torch.linalg.lstsq(stacked, torch.cat([right, torch.zeros(4, dtype=torch.float64)])[:, None]).solution
    found = NormalEquations.of(zip(features, residuals, strict=True)).solve(ridge)
    torch.testing.assert_close(found, expected[:, 0], rtol=1e-8, atol=1e-8)


def test_the_error_of_each_noise_is_that_of_its_residual():
    features, residuals, _ = problem(3, noise=0.3)
    delta = torch.tensor([0.1, -0.2, 0.3, 0.4], dtype=torch.float64)
    expected = torch.stack([(r - delta @ f).square().mean() for f, r in zip(features, residuals, strict=True)])
    torch.testing.assert_close(NormalEquations.of(zip(features, residuals, strict=True)).error(delta), expected)


@given(st.integers(0, 200))
@settings(max_examples=20)
def test_a_residual_of_pure_noise_is_fitted_no_worse_than_not_at_all(seed):
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(5, 6, dtype=torch.float64, generator=generator) for _ in range(8)]
    residuals = [torch.randn(6, dtype=torch.float64, generator=generator) for _ in range(8)]
    equations = NormalEquations.of(zip(features, residuals, strict=True))
    assert choose_ridge(equations, RIDGES, [2, 5]).error <= float(equations.energy.mean())


def test_features_of_no_use_are_left_out():
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(6, 8, dtype=torch.float64, generator=generator) for _ in range(12)]
    residuals = [f[0] - f[1] + torch.randn(8, dtype=torch.float64, generator=generator) for f in features]
    choice = choose_ridge(NormalEquations.of(zip(features, residuals, strict=True)), RIDGES, [2, 3, 4, 5, 6])
    assert 2 <= choice.width < 6


def test_the_root_loss_is_not_led_by_few_noises():
    errors = torch.tensor([1.0, 1.0, 1.0, 100.0], dtype=torch.float64)
    assert total(errors, "square") == pytest.approx(25.75) and total(errors, "root") == pytest.approx(3.25**2)
    nudged = torch.autograd.functional.jacobian(lambda e: e.sqrt().mean().square(), errors)
    torch.testing.assert_close(weights(errors, "root") / 4, nudged, rtol=1e-12, atol=0.0)

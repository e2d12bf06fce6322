from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.calibration.features import PREDICTION_ERROR, Units, feature_matrix

PROCESS = fs.processes.VPLinear()


def test_over_data_predictions_the_first_is_the_noise_prediction():
    t = torch.tensor(0.4, dtype=torch.float64)
    x, d_0, d_1, d_2 = torch.randn(4, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = feature_matrix(PROCESS, t, "x0", 3) @ torch.stack([x, d_0, d_1, d_2])
    noise = (x - PROCESS.alpha(t) * d_0) / PROCESS.sigma(t)
    torch.testing.assert_close(found, torch.stack([noise, d_0, d_0 - d_1, d_1 - d_2]))


def test_over_noise_predictions_the_first_is_the_data_prediction():
    t = torch.tensor(0.4, dtype=torch.float64)
    x, e_0, e_1 = torch.randn(3, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = feature_matrix(PROCESS, t, "epsilon", 2) @ torch.stack([x, e_0, e_1])
    data = (x - PROCESS.sigma(t) * e_0) / PROCESS.alpha(t)
    torch.testing.assert_close(found, torch.stack([data, e_0, e_0 - e_1]))


@pytest.mark.parametrize("t", [1.0, 0.3, 1e-3])
def test_they_span_what_they_are_made_of(t):
    matrix = feature_matrix(PROCESS, torch.tensor(t, dtype=torch.float64), "x0", 4)
    assert int(torch.linalg.matrix_rank(matrix)) == 5


def test_the_penalty_is_the_mean_square_that_errors_of_predictions_add():
    generator = torch.Generator().manual_seed(0)
    matrix = feature_matrix(PROCESS, torch.tensor(0.2, dtype=torch.float64), "x0", 2)
    vectors = torch.randn(3, 50, dtype=torch.float64, generator=generator) * torch.tensor([[1.0], [0.5], [0.4]])
    features = matrix @ vectors
    units = Units.of(matrix, features @ features.T / 50, vectors.square().mean(1), torch.float32)
    delta = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
    coefficients = matrix.T @ (delta / units.scale)
    size = PREDICTION_ERROR[torch.float32] * vectors.square().mean(1).sqrt()
    draws = torch.randn(20000, 3, dtype=torch.float64, generator=generator) * size
    assert float((draws @ coefficients).square().mean()) == pytest.approx(
        float(delta @ units.penalty @ delta), rel=0.05
    )

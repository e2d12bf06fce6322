"""What a search makes small, against the same numbers by way of the command line's own functions."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.metrics import features, frechet_distance, from_uint8, reference, to_uint8
from fewstep.models.model import Model
from fewstep.skip_analysis import FeatureLoss, Frechet, RealData, denoising_losses


@pytest.fixture(scope="module")
def model():
    return Model(fs.zoo.load("fashion-mnist"))


def test_the_frechet_distance_is_that_of_images_on_disk(model):
    plan = fs.UniPC().plan(fs.grids.karras(model.denoiser.process, 2))
    extractor, told = features("fashion-mnist"), []
    objective = Frechet(
        model, plan, extractor, reference(), lambda seeds: [s % 10 for s in seeds], 3, lambda: told.append(1)
    )
    rows = objective.rows(range(5))
    assert rows.shape == (5, 64) and len(told) == 4
    images = from_uint8(to_uint8(model.draw(plan, range(5), list(range(5)))))
    torch.testing.assert_close(rows, extractor(images), rtol=1e-3, atol=1e-4)
    assert objective.value(rows) == frechet_distance(rows, reference())


def test_the_feature_loss_is_averaged_over_the_levels(model):
    extractor = features("fashion-mnist")
    data = RealData(model.denoiser, torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    objective = FeatureLoss(data, (0.5, 5.0), extractor)
    rows = objective.rows([7, 8, 9, 10])
    same = RealData(model.denoiser, data.x_0, [7, 8, 9, 10])
    assert torch.equal(rows, denoising_losses(same, (0.5, 5.0), extractor).feature.mean(0))
    assert objective.value(rows) == float(rows.mean())
    assert not torch.equal(rows, objective.rows(range(4)))

"""``objective="distribution"``: moments of features of the samples."""

from __future__ import annotations

import pytest
import torch
from support.exact import GaussianMixture

import fewstep as fs
from fewstep.errors import InputError
from fewstep.metrics import frechet_distance

PROCESS = fs.processes.VPLinear()
GRID = fs.grids.karras(PROCESS, 2, end="zero")
MODEL = GaussianMixture.example(PROCESS)
SETTINGS = {"num": 512, "analytic": 0, "loss": "square", "reference_steps": 40, "batch_size": 512}


def noises(num, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return float(GRID.sigma[0]) * torch.randn(num, 2, dtype=torch.float64, generator=generator)


def features(samples):
    """Return the samples and their product."""
    return torch.cat([samples, samples.prod(1, keepdim=True)], 1)


def fitted(objective, grid=GRID, **settings):
    asked = {"objective": objective, **SETTINGS, **settings}
    return fs.calibrate(MODEL, fs.UniPC(2), grid, noises(512), **asked)


def test_the_moments_are_no_farther_from_the_solutions_than_those_of_a_fit_to_features():
    recipes = [fitted(objective, features=features) for objective in ("features", "distribution")]
    x_T = noises(512)[384:]
    exact = features(fs.sample(MODEL, fs.UniPC(3), fs.grids.uniform_logsnr(PROCESS, 100, end="zero"), x_T))
    away = [frechet_distance(features(fs.execute(recipe, MODEL, x_T)), exact) for recipe in recipes]
    assert away[1] <= away[0]
    report = recipes[1].report
    assert str(report).startswith("Fréchet distance to the solution") and report.gain_low > 1.0
    assert report.after == pytest.approx(away[1], rel=0.1)


def test_the_target_can_be_other_samples():
    """A model that is wrong in its scale is sampled to the scale of the data."""
    generator = torch.Generator().manual_seed(1)
    solved = fs.sample(MODEL, fs.UniPC(3), fs.grids.uniform_logsnr(PROCESS, 100, end="zero"), noises(512))
    data = 1.2 * solved[torch.randperm(512, generator=generator)]
    plain, moved = (fitted("distribution", features=lambda x: x, target=target) for target in (None, data))
    x_T = noises(2000, 6)
    away = [frechet_distance(fs.execute(recipe, MODEL, x_T), data) for recipe in (plain, moved)]
    assert away[1] < 0.5 * away[0]
    assert str(moved.report).startswith("Fréchet distance to the target")


def test_what_does_not_go_together_is_said():
    with pytest.raises(InputError, match="objective='distribution' needs features="):
        fitted("distribution")
    with pytest.raises(InputError, match="target is what objective='distribution' fits"):
        fitted("features", features=features, target=torch.zeros(8, 3))
    with pytest.raises(InputError, match="target has 4 dimensions, features= makes 3"):
        fitted("distribution", features=features, target=torch.zeros(8, 4))
    with pytest.raises(InputError, match="features are 3: give moments"):
        fitted("distribution", features=features, target=3)

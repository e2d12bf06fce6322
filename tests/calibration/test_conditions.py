"""Conditions: classes in turn, and nested keywords split with the noises."""

from __future__ import annotations

import pytest
import torch
from support.calibration import PROCESS, Predictor, noises
from support.exact import GaussianMixture

import fewstep as fs
from fewstep.errors import InputError


def test_classes_are_taken_in_turn_unless_told():
    grid = fs.grids.karras(PROCESS, 3, end="zero")
    model = Predictor(PROCESS, 3)
    fs.calibrate(model, fs.UniPC(2), grid, num=8, batch_size=8, objective="local")
    assert model.seen[0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    model = Predictor(PROCESS, 3)
    fs.calibrate(model, fs.UniPC(2), grid, num=8, objective="local", cond="none")
    assert model.seen[0] is None
    model = Predictor(PROCESS, 3)
    fs.calibrate(model, fs.UniPC(2), grid, num=8, objective="local", cond=[2] * 8, batch_size=5)
    assert {tuple(cond.tolist()) for cond in model.seen} == {(2,) * 5, (2,) * 3, (2,) * 2, (2,)}


def test_nested_conditions_are_split_with_the_noises():
    grid = fs.grids.karras(PROCESS, 3, end="zero")
    mixture = GaussianMixture.example(PROCESS)
    shift = 0.1 * torch.arange(8, dtype=torch.float64)[:, None]

    def nested(x, t, cond):
        return mixture(x - cond["added"]["shift"], t) + cond["added"]["shift"] * cond["scale"]

    def flat(x, t, shift):
        return mixture(x - shift, t) + shift

    cond = {"added": {"shift": shift}, "scale": 1}
    settings = {"num": 8, "batch_size": 3, "objective": "local"}
    recipe = fs.calibrate(nested, fs.UniPC(2), grid, noises(grid, 8), cond=cond, **settings)
    other = fs.calibrate(flat, fs.UniPC(2), grid, noises(grid, 8), cond=shift, **settings)
    assert torch.equal(recipe.plan.history_weights, other.plan.history_weights)
    same = [
        fs.calibrate(nested, fs.UniPC(2), grid, noises(grid, 8), cond={"added": {"shift": one}, "scale": 1}, **settings)
        for one in (shift[3:4], shift[3:4].expand(8, 1))
    ]
    assert torch.equal(same[0].plan.history_weights, same[1].plan.history_weights)
    with pytest.raises(InputError, match="5 entries for 8 noises"):
        fs.calibrate(nested, fs.UniPC(2), grid, noises(grid, 8), cond={"added": {"shift": shift[:5]}}, num=8)

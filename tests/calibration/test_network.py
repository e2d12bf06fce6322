"""The network that a calibration calls: where, and what it may return."""

from __future__ import annotations

import importlib

import pytest
import torch
from support.calibration import PROCESS, noises

import fewstep as fs
from fewstep.calibration.reference import Reference
from fewstep.denoiser import network_device
from fewstep.errors import InputError, NonFiniteStateError
from fewstep.guidance import ClassifierFree


def test_a_denoiser_that_knows_no_device_is_called_where_the_noises_are():
    elsewhere = torch.empty(8, 2, device="meta")
    for unknown in (lambda x, t: x, fs.Denoiser(lambda x, t: x, PROCESS)):
        assert network_device(unknown, elsewhere) == elsewhere.device
        assert network_device(unknown, None) == network_device(unknown, torch.empty(8, 2)) == torch.device("cpu")
    known = fs.Denoiser(torch.nn.Linear(2, 2, device="meta"), PROCESS)
    assert network_device(known, torch.empty(8, 2)) == elsewhere.device
    for given in (None, torch.empty(8, 2), elsewhere):
        assert network_device(torch.nn.Linear(2, 2, device="meta"), given) == elsewhere.device
    here = fs.Denoiser(torch.nn.Linear(2, 2), PROCESS)
    for known in (here, ClassifierFree(here, 2.0, 0)):
        assert network_device(known, elsewhere) == torch.device("cpu")


def test_the_noises_device_is_what_calibrate_calls_on(monkeypatch):
    grid, asked = fs.grids.karras(PROCESS, 3), []

    class Stop(Exception):
        pass

    def solve(network, fine, x_T):
        asked.append((network.device, x_T.device))
        raise Stop

    monkeypatch.setattr(Reference, "solve", solve)
    given = noises(grid, 8)

    def device(denoiser, x_T):
        assert x_T is given
        return torch.device("meta")

    monkeypatch.setattr(importlib.import_module("fewstep.calibration.calibrate"), "network_device", device)
    with pytest.raises(Stop):
        fs.calibrate(lambda x, t: x, fs.UniPC(), grid, given, num=8)
    assert asked == [(torch.device("meta"), torch.device("cpu"))]


def test_predictions_that_are_not_finite_are_named():
    grid = fs.grids.karras(PROCESS, 4, end="zero")

    def broken(x, t):
        return x * float("nan") if float(t) < 0.05 else 0.5 * x

    with pytest.raises(NonFiniteStateError, match="not finite"):
        fs.calibrate(broken, fs.UniPC(), grid, noises(grid))


def test_predictions_of_another_shape_are_refused():
    grid = fs.grids.karras(PROCESS, 4, end="zero")
    with pytest.raises(InputError, match="must return a tensor shaped like x_t"):
        fs.calibrate(lambda x, t: x[:, :1], fs.UniPC(), grid, noises(grid))

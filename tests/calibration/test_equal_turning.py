"""The grid of equal shares of the reference's turning."""

from __future__ import annotations

import torch

import fewstep as fs
from fewstep.calibration.equal_turning import equal_turning
from fewstep.calibration.reference import Reference

PROCESS = fs.processes.VPLinear()
FINE = fs.grids.uniform_logsnr(PROCESS, 60)


def arc(angle):
    """Return a reference whose one trajectory x/α comes straight, then goes round a circle as far as ``angle`` says."""
    plane = torch.tensor([[1.0, 0.0, 0.5, 0.0], [0.0, 1.0, 0.0, 0.5]], dtype=torch.float64)
    turned = angle.clamp(min=0.0)
    path = torch.stack([turned.cos(), turned.sin() + angle.clamp(max=0.0)], dim=1)
    states = FINE.alpha[:, None] * (path @ plane)
    return Reference(FINE, states[:, None], torch.zeros(60, 1, 4, dtype=torch.float64))


def test_a_path_that_turns_evenly_in_λ_gives_even_λ():
    level = FINE.half_logsnr
    angle = 2.0 * (level - level[0]) / (level[-1] - level[0])
    given = fs.grids.quadratic_time(PROCESS, 6)
    found = equal_turning(arc(angle), torch.tensor([0]), given)
    even = torch.linspace(float(level[0]), float(level[-1]), 7, dtype=torch.float64)
    assert found is not None and found.times[0] == given.times[0] and found.times[-1] == given.times[-1]
    assert float((found.half_logsnr[1:-1] - even[1:-1]).abs().max()) < 2 * float(level[1] - level[0])  # two nodes


def test_times_lie_where_the_path_turns():
    level = FINE.half_logsnr
    u = (level - level[0]) / (level[-1] - level[0])
    found = equal_turning(arc(4.0 * (u - 0.5)), torch.tensor([0]), fs.grids.uniform_logsnr(PROCESS, 5))
    assert found is not None
    assert float((found.half_logsnr[1] - level[0]) / (level[-1] - level[0])) > 0.5


def test_too_few_nodes_and_no_turning_give_none():
    level = FINE.half_logsnr
    assert equal_turning(arc(level), torch.tensor([0]), fs.grids.uniform_logsnr(PROCESS, 61)) is None

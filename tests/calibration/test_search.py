"""The search for a grid: where one more formula goes."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.calibration.interior_times import InteriorTimes
from fewstep.calibration.search import with_one_more

PROCESSES = [fs.processes.VPLinear(), fs.processes.EDM(), fs.processes.RectifiedFlow()]


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
@pytest.mark.parametrize("end", ["zero", None])
@pytest.mark.parametrize("formulas", [0, 1, 2])
def test_one_more_formula_comes_halfway_to_the_first_call(process, end, formulas):
    grid = fs.grids.uniform_logsnr(process, 5, end=end)
    placement = InteriorTimes(grid, float(grid.half_logsnr[-2]))
    longer = with_one_more(grid, formulas, placement)
    assert longer.steps == 6
    place = max(formulas - 1, 0)
    kept = [*range(place + 1), *range(place + 2, 7)]
    torch.testing.assert_close(longer.times[kept], grid.times, rtol=1e-12, atol=1e-15)
    level = longer.half_logsnr.clone()
    level[0] = placement.lowest
    torch.testing.assert_close(level[place + 1], level[[place, place + 2]].mean(), rtol=0, atol=1e-9)


def test_where_there_is_no_room_there_is_none():
    grid = fs.grids.uniform_logsnr(PROCESSES[0], 1, end="zero")
    assert with_one_more(grid, 1, InteriorTimes(grid, 4.0)) is None
    times = PROCESSES[0].time(torch.tensor([-2.0, -1.96, 1.0], dtype=torch.float64))
    close = fs.TimeGrid(PROCESSES[0], torch.cat([times, torch.zeros(1, dtype=torch.float64)]))
    assert with_one_more(close, 1, InteriorTimes(close, 4.0)) is None

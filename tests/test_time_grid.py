"""TimeGrid: what it refuses, what it keeps."""

import math

import pytest
import torch

import fewstep as fs
from fewstep.errors import InputError

VP = fs.processes.VPLinear()


def test_keeps_float64_times_and_their_levels():
    grid = fs.TimeGrid(VP, [1.0, 0.5, 0.0])
    assert grid.times.dtype == torch.float64
    assert grid.steps == 2
    assert grid.ends_at_zero and math.isinf(float(grid.half_logsnr[-1]))
    assert not fs.TimeGrid(VP, [1.0, 0.5]).ends_at_zero
    assert fs.TimeGrid(fs.processes.RectifiedFlow(), [1.0, 0.5]).starts_at_pure_noise


def test_json_gives_the_same_grid_back():
    grid = fs.grids.karras(fs.processes.EDM(), 7)
    assert fs.TimeGrid.from_json(grid.to_json()) == grid


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ([1.0, 0.5, 0.5], "fall strictly"),
        ([0.2, 0.5], "fall strictly"),
        ([1.0, float("nan"), 0.1], "finite"),
        ([1.0], "at least two"),
        ("abc", "times is 'abc'"),
        (None, "sequence of numbers"),
        ([1.0, -0.1], "between 0"),
        ([1.5, 0.5], "between 0"),
    ],
)
def test_wrong_times_are_refused(times, words):
    with pytest.raises(InputError, match=words):
        fs.TimeGrid(VP, times)


def test_the_given_times_are_copied():
    times = torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)
    grid = fs.TimeGrid(VP, times)
    times[1] = 0.7
    assert grid.times.tolist() == [1.0, 0.5, 0.1]


@pytest.mark.parametrize(
    ("process", "times"),
    [(VP, [[1.0, 0.5, 0.0], [1.0, 0.5, 0.1]]), (fs.processes.RectifiedFlow(), [[1.0, 0.5], [0.9, 0.5]])],
    ids=["ends", "starts"],
)
def test_a_batch_of_grids_has_ends_of_one_kind(process, times):
    with pytest.raises(InputError, match="two batches"):
        fs.TimeGrid(process, times)
    for one in times:
        assert fs.TimeGrid(process, [one, one]).steps == len(one) - 1


def test_times_whose_levels_coincide_are_refused():
    with pytest.raises(InputError, match="further apart"):
        fs.TimeGrid(fs.processes.EDM(), [1e5, math.nextafter(1e5, 0.0)])


GRID = '{"format": "fewstep-grid/1", '


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": "fewstep-grid/9"}',
        '{"format": "fewstep-grid/1"}',
        GRID + '"process": {"name": "edm"}, "times": "abc"}',
        GRID + '"process": {"name": "edm"}, "times": null}',
        GRID + '"process": {"name": "edm"}, "times": [[1, 0.5], [1]]}',
        GRID + '"process": {"name": "edm", "sigma_min": "abc"}, "times": [1, 0.5]}',
        GRID + '"process": {"name": "vp-discrete", "alphas_cumprod": null}, "times": [1, 0.5]}',
    ],
)
def test_damaged_json_is_refused(text):
    with pytest.raises(InputError):
        fs.TimeGrid.from_json(text)


def test_the_process_must_be_one():
    with pytest.raises(InputError, match="VPLinear"):
        fs.TimeGrid("vp-linear", [1.0, 0.5])


def test_it_can_be_read():
    grid = fs.grids.karras(fs.processes.EDM(), 5)
    first, *rows = str(grid).splitlines()
    assert first == "5 steps of EDM(sigma_min=0.002, sigma_max=80.0), to the noise-free end"
    assert [row.split()[0] for row in rows] == ["time", "σ/α", "λ"] and {len(row.split()) for row in rows} == {7}
    assert rows[0].split()[1:] == [f"{t:.4g}" for t in grid.times.tolist()]
    long = str(fs.grids.karras(fs.processes.EDM(), 100)).splitlines()
    assert len(long) == 4 and all(len(line) <= 120 for line in long)
    batch = fs.TimeGrid(fs.processes.EDM(), grid.times.repeat(3, 1))
    assert str(batch) == "a batch of (3,) grids of 5 steps of EDM(sigma_min=0.002, sigma_max=80.0)"

"""Time steps of the least bound: the published bounds, properties over solvers and processes, and mistakes."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.solvers import SOLVERS

import fewstep as fs
from fewstep.errors import InputError
from fewstep.grids.bound import Bound, error_profile

VP = fs.processes.VPLinear()
bounded = partial(fs.grids.optimized, objective="bound")
PROCESSES = [
    VP,
    fs.processes.VPCosine(),
    fs.processes.VPDiscrete.from_betas(),
    fs.processes.EDM(),
    fs.processes.RectifiedFlow(shift=3.0),
]
PUBLISHED_SOLVER = fs.UniPC(3, "exact", corrector=False)
PUBLISHED = {
    1: [
        71.3757,
        56.8224,
        40.4084,
        13.552,
        12.3543,
        15.478,
        13.7399,
        12.656,
        11.9633,
        11.3809,
        11.099,
        10.7797,
        10.5492,
        9.9777,
        10.0712,
        9.9037,
    ],
    2: [
        49.9048,
        38.3477,
        25.8037,
        5.7392,
        10.9143,
        7.465,
        7.1852,
        6.6299,
        6.4128,
        6.1443,
        6.2492,
        6.1084,
        5.888,
        6.0111,
        5.9824,
        5.826,
    ],
}
"""The published method's bounds at N = 5 … 20: SciPy's trust-constr, the lower from uniform λ and from uniform t."""


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("steps", range(5, 21))
def test_the_bound_is_at_most_the_published_methods(steps, power):
    grid = bounded(VP, PUBLISHED_SOLVER, steps, error_power=power)
    rounding = 5e-5
    assert grid.report.after <= PUBLISHED[power][steps - 5] + rounding
    assert float(grid.times[-1]) == VP.t_min and float(grid.times[0]) == 1.0


def test_where_the_published_method_got_stuck_the_bound_is_well_below():
    for steps, power in ((8, 1), (10, 1), (9, 2)):
        after = bounded(VP, PUBLISHED_SOLVER, steps, error_power=power).report.after
        assert after < 0.95 * PUBLISHED[power][steps - 5]


def test_the_published_method_gives_the_published_bound():
    grid = bounded(VP, PUBLISHED_SOLVER, 5, method="trust-constr")
    assert grid.report.after == pytest.approx(71.3757, abs=5e-4)


@settings(max_examples=50)
@given(
    process=st.sampled_from(PROCESSES),
    solver=st.sampled_from(SOLVERS),
    steps=st.one_of(st.integers(1, 8), st.integers(1, 50)),
    power=st.sampled_from([0.5, 1, 2]),
    end=st.sampled_from([None, "zero"]),
)
def test_grids_fall_and_are_never_worse_than_a_start(process, solver, steps, power, end):
    grid = bounded(process, solver, steps, error_power=power, end=end)
    assert grid.steps == steps and bool((grid.times.diff() < 0).all())
    assert float(grid.times[0]) == process.t_max
    to_zero = end == "zero" or process.ends_at_zero
    assert float(grid.times[-1]) == (0.0 if to_zero else process.t_min)
    if to_zero and steps > 1:
        assert float(grid.times[-2]) >= process.t_min * (1 - 1e-9)
    assert grid.report.after <= min(grid.report.before.values()) * (1 + 1e-12)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("steps", [6, 10, 15, 20])
def test_to_the_noise_free_end_no_start_is_stuck_on_the_edge(steps, power):
    """The heuristic grids cover the whole range of λ: the edge of what is allowed, which must not hold them."""
    grid = bounded(fs.processes.VPDiscrete.from_betas(), fs.UniPC(3), steps, error_power=power, end="zero")
    assert grid.report.after < 0.97 * min(grid.report.before.values())


def test_torch_gets_its_threads_back():
    threads = torch.get_num_threads()
    bounded(VP, fs.UniPC(3), 6)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("steps", [33, 50])
def test_many_steps(steps):
    for process, solver in ((VP, fs.UniPC(3)), (fs.processes.EDM(), fs.SASolver(3, 4, tau=1.0))):
        grid = bounded(process, solver, steps)
        assert bool((grid.times.diff() < 0).all())
        assert grid.report.after <= min(grid.report.before.values())


def test_it_is_deterministic_and_serves_as_a_grid():
    one, two = (bounded(VP, fs.UniPC(3), 7) for _ in range(2))
    assert torch.equal(one.times, two.times)
    assert fs.TimeGrid.from_json(one.to_json()) == one
    assert fs.UniPC(3).plan(one).nfe == 7
    assert fs.grids.named("optimized:error_power=1", VP, 7, solver=fs.UniPC(3)) == one


def test_the_bound_of_ddim_is_that_of_its_weights():
    """Each prediction of DDIM enters one row only, so nothing cancels: Σ|W_i|·ε̃_i/σ_N."""
    grid = fs.grids.uniform_logsnr(VP, 9)
    plan = fs.DDIM().plan(grid)
    error = VP.sigma(plan.call_times) ** 2 / VP.alpha(plan.call_times)
    wanted = (plan.unrolled()[1].abs() * error).sum() / VP.sigma(grid.times[-1])
    got = Bound(VP, fs.DDIM(), 2, to_zero=False)(grid.times[None])[0]
    assert float(got) == pytest.approx(float(wanted), rel=1e-12)


def test_to_the_noise_free_end_the_bound_is_that_of_the_last_prediction():
    grid = fs.grids.uniform_logsnr(VP, 9, end="zero")
    plan = fs.DDIM().plan(grid)
    inner = fs.DDIM().plan(fs.TimeGrid(VP, grid.times[:-1]))
    error = VP.sigma(plan.call_times) / VP.alpha(plan.call_times)
    before = (inner.unrolled()[1].abs() * error[:-1]).sum() / VP.alpha(grid.times[-2])
    got = Bound(VP, fs.DDIM(), 1, to_zero=True)(grid.times[None])[0]
    assert float(got) == pytest.approx(float(before + error[-1]), rel=1e-12)


def test_up_to_seven_steps_the_first_three_intervals_do_not_cancel():
    grid = fs.grids.uniform_logsnr(VP, 7)
    plan = PUBLISHED_SOLVER.plan(grid)
    error = VP.sigma(plan.call_times) / VP.alpha(plan.call_times)
    through = plan.contributions()[1] * error / VP.sigma(grid.times[-1])
    alone = [0, 1, 2, 6]
    wanted = through[alone].norm(dim=-1).sum() + through[[3, 4, 5]].sum(0).abs().sum()
    got = Bound(VP, PUBLISHED_SOLVER, 1, to_zero=False)(grid.times[None])[0]
    assert float(got) == pytest.approx(float(wanted), rel=1e-12)


def test_an_error_profile_of_ones_own():
    power = bounded(VP, fs.UniPC(2), 6, error_power=1)

    def profile(half_logsnr):
        t = VP.time(half_logsnr)
        return VP.sigma(t) / VP.alpha(t)

    assert torch.allclose(bounded(VP, fs.UniPC(2), 6, error_power=profile).times, power.times, rtol=1e-4)
    at = torch.linspace(-5.1, 4.7, 400, dtype=torch.float64)
    pairs = torch.stack([at, profile(at)], dim=1).tolist()
    measured = error_profile(VP, pairs)(torch.tensor([0.1, 0.5, 0.9]))
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    assert torch.allclose(measured, VP.sigma(t) / VP.alpha(t), rtol=1e-3)
    assert bounded(VP, fs.UniPC(2), 6, error_power=pairs).report.error_power is None


@pytest.mark.parametrize("power", [np.int64(2), np.float32(2), torch.tensor(2), torch.tensor(2.0)], ids=repr)
def test_the_error_power_is_any_number(power):
    grid = bounded(VP, fs.UniPC(2), 4, error_power=power)
    assert grid == bounded(VP, fs.UniPC(2), 4, error_power=2) and grid.report.error_power == 2.0


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"process": "vp"}, "VPLinear"),
        ({"solver": "unipc"}, "fs.UniPC"),
        ({"steps": 0}, "steps is 0"),
        ({"error_power": -1}, "positive number"),
        ({"error_power": float("nan")}, "positive number"),
        ({"error_power": [(0.0, 1.0)]}, "two pairs"),
        ({"error_power": [(0.0, 1.0), (0.0, 2.0)]}, "each once"),
        ({"error_power": [(0.0, 1.0), (1.0, 0.0)]}, "above 0"),
        ({"error_power": lambda half_logsnr: half_logsnr * float("nan")}, "above 0"),
        ({"end": "nought"}, "'zero' or None"),
        ({"method": "trust"}, "did you mean 'trust-constr'"),
    ],
)
def test_mistakes_are_answered(settings_, words):
    given_ = {"process": VP, "solver": fs.UniPC(3), "steps": 5, **settings_}
    with pytest.raises(InputError, match=words):
        bounded(given_.pop("process"), given_.pop("solver"), given_.pop("steps"), **given_)

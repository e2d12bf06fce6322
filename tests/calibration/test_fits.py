"""The row-by-row fit, the search over times and the fit to the final samples, on exact models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.exact import Gaussian, GaussianMixture
from support.rounding import ridge_rounding

import fewstep as fs
from fewstep.analytic import AnalyticPrediction, radial_bands
from fewstep.calibration import final_problem as final_problems
from fewstep.calibration.final_problem import FinalProblem
from fewstep.calibration.formulas import PAST
from fewstep.calibration.gauss_newton import descend
from fewstep.calibration.interior_times import InteriorTimes
from fewstep.calibration.network import CountedNetwork
from fewstep.calibration.reference import Reference, reference_grid
from fewstep.calibration.rows import RIDGES, Resume, fit_rows
from fewstep.calibration.student import BaseTables, Table
from fewstep.calibration.times_problem import TimesProblem
from fewstep.executor import execute, folded

PROCESS = fs.processes.VPLinear()
GRID = fs.TimeGrid(PROCESS, [*fs.grids.quadratic_time(PROCESS, 4, end=0.01).times.tolist(), 0.0])
WHICH = torch.arange(24)


def prepared(model, sample=(2,), num=32, grid=GRID):
    x_T = torch.randn(num, *sample, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    network = CountedNetwork(model, None, num, 8)
    return network, Reference.solve(network, reference_grid(grid, 60), float(grid.sigma[0]) * x_T)


@pytest.fixture(scope="module")
def mixture():
    return prepared(GaussianMixture.example(PROCESS))


def placement(reference):
    return InteriorTimes(GRID, float(reference.grid.half_logsnr[-2]))


@pytest.mark.parametrize("solver", [fs.Euler(), fs.UniPC(3), fs.DEIS(3)], ids=repr)
def test_an_affine_model_is_fitted_to_rounding(solver):
    model = Gaussian(PROCESS, 0.4, 0.6)

    def denoiser(x, t):
        gain, offset = model.affine(float(t))
        return gain * x + offset

    network, reference = prepared(denoiser)
    plan = folded(solver.plan(GRID))
    rows = fit_rows(Table.of(plan, 4), network, reference, WHICH, history=4)
    unseen = torch.arange(24, 32)
    start = reference.state(float(GRID.times[0]), unseen)
    own, fitted = (
        float((execute(p, denoiser, start) - reference.end[unseen]).abs().max()) for p in (plan, rows.table.finished())
    )
    assert own > 1e-3
    assert fitted < GRID.steps * ridge_rounding(1 + 4, RIDGES[0]) * own


def test_each_row_is_no_worse_on_noises_it_has_not_seen(mixture):
    rows = fit_rows(BaseTables(fs.UniPC(2), 4).on(GRID), *mixture, WHICH, history=4)
    assert all(fit.fitted <= fit.base for fit in rows.fits)
    assert rows.fits[1].fitted < 0.9 * rows.fits[1].base


def test_predictions_older_than_the_history_keep_the_solvers_coefficients(mixture):
    plan = folded(fs.UniPC(4).plan(GRID))
    rows = fit_rows(Table.of(plan, 1), *mixture, WHICH, history=1, ridge=1e-9)
    torch.testing.assert_close(rows.table.history_weights[:, 1:], plan.history_weights[:, 1:], rtol=0, atol=0)
    assert not torch.equal(rows.table.history_weights[:, 0], plan.history_weights[:, 0])


def test_the_final_states_are_those_of_the_plan(mixture):
    network, reference = mixture
    rows = fit_rows(BaseTables(fs.UniPC(3), 3).on(GRID), network, reference, WHICH, history=3)
    end = execute(rows.table.finished(), network.denoiser, reference.state(float(GRID.times[0]), WHICH))
    torch.testing.assert_close(rows.end, end, rtol=0, atol=1e-12)


def test_a_resumed_fit_is_the_whole_fit(mixture):
    plan = BaseTables(fs.UniPC(2), 4).on(GRID)
    whole = fit_rows(plan, *mixture, WHICH, history=4, ridge=1e-6)
    calls = mixture[0].calls
    again = fit_rows(plan, *mixture, WHICH, history=4, ridge=1e-6, resume=Resume(whole, 3))
    assert mixture[0].calls - calls == len(WHICH) * 1  # Row 3's prediction is known: only row 4 calls.
    assert torch.equal(again.end, whole.end)
    assert torch.equal(again.table.history_weights, whole.table.history_weights)


def test_moving_times_lowers_the_error(mixture):
    network, reference = mixture
    problem = TimesProblem(placement(reference), BaseTables(fs.UniPC(2), 4), network, reference, WHICH)
    start = problem.at(GRID)
    best = descend(problem, start, 6)
    assert best.error < 0.5 * start.error
    grid = best.detail.table.plan
    assert grid.times[0] == GRID.times[0] and grid.times[-1] == 0.0


def final_problem(mixture, times=False, features=None, history=3):
    network, reference = mixture
    tables = BaseTables(fs.UniPC(2), history)
    rows = fit_rows(tables.on(GRID), network, reference, WHICH, history=history)
    widths = tuple(1 + min(n + 1, history) for n in range(GRID.steps))
    where = placement(reference) if times else None
    return FinalProblem(rows, tables, network, reference, WHICH, widths, where, features or torch.detach)


@pytest.mark.parametrize("times", [False, True])
def test_derivatives_are_those_of_the_error(mixture, times, monkeypatch):
    monkeypatch.setattr(final_problems, "ROW_DIFFERENCE", 1e-4)
    monkeypatch.setattr(final_problems, "TIME_DIFFERENCE", 1e-4)
    problem = final_problem(mixture, times)
    point = problem.start()
    equations = problem.linearise(point)
    slope = -2.0 * equations.moment.mean(0)
    for p in range(len(point.theta)):
        step = torch.zeros_like(point.theta)
        step[p] = 1e-3
        up, down = problem.evaluate(point.theta + step), problem.evaluate(point.theta - step)
        central = (up.error - down.error) / 2e-3
        assert float(slope[p]) == pytest.approx(central, rel=0.01, abs=1e-3 * float(slope.abs().max()))


def test_the_start_is_the_rows(mixture):
    problem = final_problem(mixture, times=True)
    table = problem.start().detail
    torch.testing.assert_close(table.history_weights, problem.rows.table.history_weights, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(table.plan.times, problem.rows.table.plan.times, rtol=1e-12, atol=1e-12)


def test_fitting_the_final_samples_lowers_their_error(mixture):
    problem = final_problem(mixture)
    start = problem.start()
    assert descend(problem, start, 3).error < 0.9 * start.error


def test_features_are_what_is_compared(mixture):
    first = lambda x: x[:, :1]  # noqa: E731
    problem = final_problem(mixture, features=first)
    network, reference = mixture
    end = execute(problem.rows.table.finished(), network.denoiser, reference.state(float(GRID.times[0]), WHICH))
    expected = float((end - reference.end[WHICH])[:, 0].square().mean())
    assert problem.start().error == pytest.approx(expected, rel=1e-6)


def test_a_family_shares_the_ends():
    where = InteriorTimes(GRID, float(PROCESS.half_logsnr(PROCESS.t_min)))
    even = where.family(1.0, 0.0)
    assert even.times[0] == GRID.times[0] and even.times[-1] == 0.0
    assert float(even.half_logsnr[-2]) == pytest.approx(where.highest - 1.0)
    gaps = even.half_logsnr[:-1].diff()
    torch.testing.assert_close(gaps, gaps.mean().expand_as(gaps))
    assert bool((where.family(1.0, -1.0).half_logsnr[:-1].diff().diff() < 0).all())


def test_times_too_close_are_no_grid():
    where = InteriorTimes(GRID, float(PROCESS.half_logsnr(PROCESS.t_min)))
    assert where.grid(torch.tensor([0.0, 0.01, 1.0, 2.0])) is None
    assert where.grid(torch.tensor([0.0, 0.5, 1.0, 20.0])) is None
    assert where.grid(where.read(GRID)) is not None


def test_a_formula_after_the_last_row_mends_what_rows_cannot():
    """On Gaussian data of any spectrum a gain for each band leaves nothing; all forms share the network's calls."""
    sample = (1, 4, 6)
    variance = 0.5 ** torch.arange(int(radial_bands(sample[1:]).max()) + 1, dtype=torch.float64)

    def denoiser(x, t):
        alpha, sigma = float(PROCESS.alpha(t)), float(PROCESS.sigma(t))
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        return AnalyticPrediction(gain, torch.zeros(())).bound(x)(x)

    problem = final_problem(prepared(denoiser, sample))
    point, network = problem.start(), problem.network
    calls = network.calls
    ended, best = problem.with_last(point, ["scalar", "mean", "bands"])
    assert network.calls - calls == len(WHICH) * GRID.steps
    assert best.detail.last.form == "bands" and point.error > 1e-6
    rounding = ridge_rounding(1, RIDGES[0]) ** 2
    assert best.error - float(point.theta @ ended._penalty @ point.theta) < rounding * point.error
    plan = best.detail.finished()
    assert plan.nfe == GRID.steps and plan.analytic[-1] is best.detail.last.whole
    unseen = torch.arange(24, 32)
    made = execute(plan, denoiser, problem.reference.state(float(GRID.times[0]), unseen))
    gap = (made - problem.reference.end[unseen]).square().mean()
    assert float(gap) < rounding * point.error


def test_a_formula_of_earlier_predictions_mends_what_one_of_the_state_cannot():
    """Two channels that are drawn to each other more weakly, the finer the structure, with what tanh makes of them."""
    bands = radial_bands((4, 6))
    couple = torch.stack(
        [torch.tensor([[1.0, 0.8**b], [0.8**b, 1.0]]).double() / 4 for b in range(int(bands.max()) + 1)]
    )

    def denoiser(x, t):
        return torch.tanh(AnalyticPrediction(couple, torch.zeros(())).bound(x)(x))

    problem = final_problem(prepared(denoiser, (2, 4, 6)))
    point, network = problem.start(), problem.network
    calls = network.calls
    assert problem.most_past == GRID.steps
    ended, best = problem.with_last(point, ["channel bands", PAST])
    _, without = problem.with_last(point, ["channel bands"])
    assert network.calls - calls == 2 * len(WHICH) * GRID.steps  # Forms share the calls.
    assert ended.last == PAST and best.error < 0.9 * without.error
    plan = descend(ended, best, 2).detail.finished()
    assert plan.nfe == GRID.steps and plan.analytic[-1].past == GRID.steps
    unseen = torch.arange(24, 32)
    made = execute(plan, denoiser, problem.reference.state(float(GRID.times[0]), unseen))
    assert float((made - problem.reference.end[unseen]).square().mean()) < without.error


@pytest.mark.parametrize("form", ["mean", "bands", "channel bands", PAST])
def test_a_formula_after_the_last_row_does_not_depend_on_the_batch(form):
    problem = final_problem(prepared(lambda x, t: torch.tanh(x), (2, 4, 6)))
    network = CountedNetwork(problem.network.denoiser, None, problem.network.num, 5)
    found = [
        one.evaluate(problem.start().theta).detail.last.whole
        for one in (replace(problem, last=form), replace(problem, last=form, network=network))
    ]
    assert torch.equal(found[0].gain, found[1].gain) and torch.equal(found[0].mean, found[1].mean)


def test_no_formula_after_rows_that_leave_nothing():
    model = Gaussian(PROCESS, 0.4, 0.6)

    def denoiser(x, t):
        gain, offset = model.affine(float(t))
        return gain * x + offset

    problem = final_problem(prepared(denoiser))
    found = problem.with_last(problem.start(), ["mean"])
    assert found is None or found[1].error < 1e-12


def test_rows_are_fitted_on_with_a_formula_after_them(mixture):
    problem = replace(final_problem(mixture, history=1), last="mean")
    start = problem.start()
    assert descend(problem, start, 3).error < 0.9 * start.error

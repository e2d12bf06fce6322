"""A folded plan visits the same points with one row a call."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.exact import GaussianMixture
from support.rounding import by_rows, effect
from support.solvers import FOLDABLE, SOLVERS

import fewstep as fs
from fewstep.analytic import AnalyticPrediction
from fewstep.executor import folded, with_last_formula, without_last_formula
from fewstep.executor.fold import foldable

PROCESSES = [fs.processes.VPDiscrete.from_betas(), fs.processes.RectifiedFlow(3.0), fs.processes.EDM()]


def start(plan, process):
    x_T = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return float(process.sigma(plan.times[0])) * x_T


def run(plan, process):
    seeds = range(6) if plan.stochastic else None
    return fs.execute(plan, GaussianMixture.example(process), start(plan, process), seeds=seeds)


def assert_same(one_row, plan, process):
    """Both give the same samples, but for roundings, row by row and in the executor."""
    model, x_T = GaussianMixture.example(process), start(plan, process)
    noise = torch.randn(plan.steps, *x_T.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    atol = effect(lambda rounded: by_rows(plan, model, x_T, noise, rounded))
    torch.testing.assert_close(*(by_rows(p, model, x_T, noise) for p in (one_row, plan)), rtol=0, atol=atol)
    torch.testing.assert_close(run(one_row, process), run(plan, process), rtol=0, atol=atol)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
@pytest.mark.parametrize("solver", FOLDABLE, ids=str)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_same_result_as_the_plan(solver, process, steps):
    plan = solver.plan(fs.grids.uniform_time(process, steps))
    one_row = folded(plan)
    assert one_row.interval.tolist() == list(range(steps)) and one_row.nfe == steps
    assert_same(one_row, plan, process)


def test_from_pure_noise():
    process = fs.processes.RectifiedFlow(3.0)
    plan = fs.UniPC(3).plan(fs.TimeGrid(process, [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]))
    assert_same(folded(plan), plan, process)


def test_without_any_corrector_it_is_the_predictor():
    process = fs.processes.VPLinear()
    grid = fs.grids.uniform_logsnr(process, 6)
    bare = folded(fs.UniPC(3, corrector=True).plan(grid), uncorrected=range(6))
    torch.testing.assert_close(bare.history_weights, fs.UniPC(3, corrector=False).plan(grid).history_weights)


def test_some_correctors_can_be_left_out():
    process = fs.processes.VPLinear()
    grid = fs.grids.uniform_logsnr(process, 6)
    whole, partial = folded(fs.UniPC(2).plan(grid)), folded(fs.UniPC(2).plan(grid), uncorrected=[2])
    changed = [n for n in range(6) if not torch.equal(whole.history_weights[n], partial.history_weights[n])]
    assert changed == [3]


@pytest.mark.parametrize("solver", [solver for solver in SOLVERS if solver not in FOLDABLE], ids=repr)
def test_other_numbers_of_calls_are_refused(solver):
    with pytest.raises(fs.errors.InputError, match="calls in 5 steps"):
        folded(solver.plan(fs.grids.uniform_time(fs.processes.VPDiscrete.from_betas(), 5)))


def test_a_plan_whose_rows_have_noise_of_their_own_runs_unfolded():
    process = PROCESSES[0]
    plan = fs.SASolver(2, 2, few_step=True).plan(fs.grids.uniform_time(process, 4))
    noise = plan.noise_scale.clone()
    noise[torch.searchsorted(plan.interval, torch.tensor(0), right=True) - 1] *= 0.5
    other = replace(plan, noise_scale=noise)
    assert foldable(plan) and not foldable(other)
    with pytest.raises(fs.errors.InputError, match="different noise"):
        folded(other)
    assert bool(torch.isfinite(run(other, process)).all()) and not torch.equal(run(other, process), run(plan, process))


@pytest.mark.parametrize("evaluate", [[True, False, True, False], [True, True, False, False]], ids=str)
def test_a_plan_with_other_rows_runs_unfolded(evaluate):
    """One call at the start of each of two intervals, but on a corrected state, or with a correction at the end."""
    state = torch.tensor([0.5, 0.25, 0.4, 0.1], dtype=torch.float64)
    plan = fs.Plan(
        grid=fs.TimeGrid(fs.processes.EDM(), [4.0, 2.0, 1.0]),
        interval=torch.tensor([0, 0, 1, 1]),
        state_weight=state,
        history_weights=1.0 - state[:, None],
        noise_scale=torch.zeros(4, dtype=torch.float64),
        evaluate=torch.tensor(evaluate),
    )
    x = torch.tensor([[0.3], [2.0]], dtype=torch.float64)
    first = torch.tanh(x)
    latest = torch.tanh(0.5 * x + 0.5 * first) if evaluate[1] else first
    middle = 0.25 * x + 0.75 * latest
    latest = torch.tanh(middle) if evaluate[2] else latest
    torch.testing.assert_close(fs.execute(plan, lambda x, t: torch.tanh(x), x), 0.1 * middle + 0.9 * latest)
    with pytest.raises(fs.errors.InputError, match="before a correction"):
        folded(plan)


@pytest.mark.parametrize("lead", [0, 1])
def test_a_last_formula_makes_the_sample_from_the_last_state(lead):
    """It costs no call, survives JSON, and comes off again; states in between are the same."""
    process = PROCESSES[0]
    plan = folded(fs.UniPC(3).plan(fs.grids.karras(process, 4, end="zero")))
    if lead:
        formula = AnalyticPrediction.gaussian(process, plan.times[0], 0.6)
        evaluate = torch.arange(4) > 0
        plan = replace(plan, evaluate=evaluate, analytic=(formula, None, None, None))
    plan = replace(plan, fitted=True)
    last = AnalyticPrediction(torch.tensor([0.9], dtype=torch.float64), torch.tensor([0.1, -0.2]))
    ended = fs.Plan.from_json(with_last_formula(plan, last).to_json())
    assert ended.nfe == plan.nfe and ended.steps == plan.steps
    model = GaussianMixture.example(process)
    x_T = start(plan, process)
    states = []
    made = fs.execute(ended, model, x_T, callback=lambda n, t, x, x0: states.append(x.clone()))
    before = []
    end = fs.execute(plan, model, x_T, callback=lambda n, t, x, x0: before.append(x.clone()))
    torch.testing.assert_close(made, 0.9 * end + last.mean.double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(states, [*before[:-1], made], rtol=0, atol=0)
    off, formula = without_last_formula(ended)
    assert off.to_json() == plan.to_json() and formula.to_dict() == last.to_dict()
    assert without_last_formula(plan) == (plan, None)


@pytest.mark.parametrize("past", [1, 4])
def test_a_last_formula_takes_the_newest_predictions(past):
    """As many as there are, in a history that only it needs; JSON keeps them, and the plan without it is the same."""
    process = PROCESSES[0]
    plan = replace(folded(fs.UniPC(2).plan(fs.grids.karras(process, 4, end="zero"))), fitted=True)
    generator = torch.Generator().manual_seed(0)
    gains = torch.randn(2, 2, 2 * (1 + past), dtype=torch.float64, generator=generator)
    last = AnalyticPrediction(gains, torch.randn(2, 1, 2, generator=generator))
    ended = with_last_formula(plan, last)
    x_T, made = float(plan.grid.sigma[0]) * torch.randn(5, 2, 1, 2, dtype=torch.float64, generator=generator), []

    def denoiser(x, t):
        made.append(torch.tanh(x))
        return made[-1].clone()

    end = fs.execute(plan, denoiser, x_T)
    newest = made[::-1][:past]
    expected = last.bound(end)(end, *newest)
    for again in (ended, fs.Plan.from_json(ended.to_json())):
        assert torch.equal(fs.execute(again, denoiser, x_T), expected)
    off, formula = without_last_formula(ended)
    assert formula.past == past and torch.equal(fs.execute(off, denoiser, x_T), end)


def test_a_last_row_that_does_more_than_a_formula_is_no_last_formula():
    plan = folded(fs.UniPC(3).plan(fs.grids.karras(PROCESSES[0], 4, end="zero")))
    ended = with_last_formula(replace(plan, fitted=True), AnalyticPrediction(torch.ones(1), torch.zeros(())))
    state, history = ended.state_weight.clone(), ended.history_weights.clone()
    state[-1], history[-1, 1] = 0.5, 0.5
    for other in (replace(ended, state_weight=state), replace(ended, history_weights=history)):
        assert without_last_formula(other) == (other, None)

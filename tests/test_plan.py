"""Plan: the table refuses to be wrong, its weights are the sampler's, JSON keeps every bit."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.rounding import by_rows, effect
from support.solvers import SOLVERS

import fewstep as fs
from fewstep.errors import InputError
from fewstep.plan import Plan

PROCESSES = [fs.processes.VPLinear(), fs.processes.EDM(), fs.processes.RectifiedFlow(shift=3.0)]


def example() -> Plan:
    return fs.UniPC(3).plan(fs.grids.karras(fs.processes.EDM(), 6))


@given(
    process=st.sampled_from(PROCESSES),
    solver=st.sampled_from(SOLVERS),
    steps=st.integers(1, 12),
    end=st.sampled_from([None, "zero"]),
)
def test_weights_are_what_the_executor_does(process, solver, steps, end):
    """With predictions that do not depend on the state, x_N = A·x_T + Σ W_i·D_i for a plan without noise."""
    plan = solver.plan(fs.grids.uniform_logsnr(process, steps, end=end))
    plan = replace(plan, noise_scale=torch.zeros_like(plan.noise_scale))
    generator = torch.Generator().manual_seed(steps)
    frozen = torch.randn(plan.nfe, 2, 3, dtype=torch.float64, generator=generator)
    x_T = torch.randn(2, 3, dtype=torch.float64, generator=generator)
    calls = iter(frozen)
    got = fs.execute(plan, lambda x, t: next(calls), x_T)
    gain, weights = plan.unrolled()
    wanted = gain * x_T + torch.einsum("i,ibc->bc", weights, frozen)
    assert next(calls, None) is None

    def plainly(rounded):
        again = iter(frozen)
        return by_rows(plan, lambda x, t: next(again), x_T, rounded=rounded)

    torch.testing.assert_close(got, wanted, rtol=0, atol=effect(plainly))


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_constant_prediction_is_reproduced_exactly(solver):
    for process in PROCESSES:
        plan = solver.plan(fs.grids.uniform_logsnr(process, 7))
        gain, weights = plan.unrolled()
        kept = float(gain * process.alpha(plan.times[0]) + weights.sum())
        assert kept == pytest.approx(float(process.alpha(plan.times[-1])), abs=1e-9)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_batch_of_grids_is_a_batch_of_plans(solver):
    process = fs.processes.VPLinear()
    grids = [fs.grids.uniform_logsnr(process, 6), fs.grids.uniform_time(process, 6)]
    batch = solver.plan(fs.TimeGrid(process, torch.stack([grid.times for grid in grids])))
    gain, weights = batch.unrolled()
    for i, grid in enumerate(grids):
        one_gain, one_weights = solver.plan(grid).unrolled()
        assert torch.allclose(gain[i], one_gain, atol=1e-12)
        assert torch.allclose(weights[i], one_weights, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_json_keeps_every_bit(solver):
    plan = solver.plan(fs.grids.uniform_time(fs.processes.VPLinear(), 5))
    back = Plan.from_json(plan.to_json())
    for name in ("times", "interval", "state_weight", "history_weights", "noise_scale", "evaluate"):
        assert torch.equal(getattr(back, name), getattr(plan, name))
    assert (back.process, back.prediction, back.solver) == (plan.process, plan.prediction, plan.solver)


def test_it_can_be_read():
    text = str(example())
    assert "6 steps, 6 calls" in text
    assert len(text.splitlines()) == 2 + len(example().rows)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: {"state_weight": p.state_weight * 1.01}, "not consistent"),
        (lambda p: {"state_weight": p.state_weight * float("nan")}, "not finite"),
        (lambda p: {"noise_scale": p.noise_scale[:-1]}, "must agree"),
        (lambda p: {"history_weights": p.history_weights[:-1]}, "must agree"),
        (lambda p: {"interval": p.interval + 1}, "without a gap"),
        (lambda p: {"grid": fs.TimeGrid(p.process, p.times[:-1])}, "without a gap"),
        (lambda p: {"evaluate": torch.zeros_like(p.evaluate)}, "must evaluate"),
        (lambda p: {"history_weights": p.history_weights.roll(1, -1)}, "more predictions"),
        (lambda p: {"prediction": "v"}, "'x0' or 'epsilon'"),
    ],
)
def test_a_wrong_table_is_refused(change, words):
    plan = example()
    with pytest.raises(InputError, match=words):
        replace(plan, **change(plan))


def test_large_coefficients_may_carry_their_rounding():
    """A row of large and opposite coefficients keeps its sum up to their rounding."""
    plan = fs.DPMSolverPP(2, lower_order_final=False).plan(
        fs.TimeGrid(fs.processes.EDM(), [80.0, 10.0, 9.0, 0.1, 0.01])
    )
    large = plan.history_weights.clone()
    large[2] += torch.tensor([3.0**18, -(3.0**18)], dtype=torch.float64)
    plan = replace(plan, history_weights=large)
    assert float(plan.history_weights.abs().max()) > 1e8
    with pytest.raises(InputError, match="not consistent"):
        replace(plan, history_weights=plan.history_weights * (1 + 1e-8))
    off = plan.history_weights.clone()
    off[plan.history_weights.abs().amax(-1).argmax(), 0] *= 1 + 1e-13  # 2e-5 in a sum of order 1: no rounding of it.
    with pytest.raises(InputError, match="not consistent"):
        replace(plan, history_weights=off)


def test_noise_predictions_are_no_part_of_the_sum():
    """What they add may be large: it does not excuse a state that is lost."""
    plan = fs.DEIS(3).plan(fs.TimeGrid(fs.processes.VPLinear(), [1.0, 0.5, 0.4, 0.1, 0.01]))
    plan = replace(plan, history_weights=plan.history_weights * 1e6)
    assert plan.prediction == "epsilon" and float(plan.history_weights.abs().max()) > 1e4
    with pytest.raises(InputError, match="not consistent"):
        replace(plan, state_weight=plan.state_weight * (1 + 1e-7))


def test_fitted_tables_need_not_reproduce_a_constant():
    plan = example()
    assert replace(plan, state_weight=plan.state_weight * 1.01, fitted=True).fitted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "{}",
        '{"format": "fewstep-plan/0"}',
        '{"format": "fewstep-plan/1"}',
        '{"format": "fewstep-plan/1", "rows": 3}',
    ],
)
def test_damaged_json_is_refused(text):
    with pytest.raises(InputError):
        Plan.from_json(text)

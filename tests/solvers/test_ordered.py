"""Orders chosen for each step."""

import pytest
import torch

import fewstep as fs
from fewstep.errors import InputError
from fewstep.grids.bound import Bound
from fewstep.solvers import Ordered, optimized_orders
from fewstep.solvers.ordered import patterns

VP = fs.processes.VPLinear()


@pytest.mark.parametrize("solver", [fs.UniPC(3), fs.DPMSolverPP(3), fs.DPMSolverPP(2), fs.DEIS(3)], ids=repr)
@pytest.mark.parametrize("end", [None, "zero"])
def test_with_its_own_orders_a_solver_is_itself(solver, end):
    grid = fs.grids.karras(VP, 6, end=end)
    own = solver.schedule(grid)
    orders = [own.predictor_order(n, grid) for n in range(6)]
    made, plain = Ordered(solver, orders).plan(grid), solver.plan(grid)
    assert made.nfe == plain.nfe
    for name in ("state_weight", "history_weights", "noise_scale"):
        assert torch.equal(getattr(made, name), getattr(plain, name))


def test_orders_are_those_asked_for():
    grid = fs.grids.uniform_logsnr(VP, 6)
    plan = Ordered(fs.UniPC(3, corrector=False), (1, 1, 2, 3, 3, 1)).plan(grid)
    used = [(row.history_weights, row.interval) for row in plan.rows]
    assert [sum(w != 0 for w in weights) for weights, _ in used] == [1, 1, 2, 3, 3, 1]
    assert Ordered("dpmpp", 1221) == Ordered("dpmpp", (1, 2, 2, 1)) and "1221" in repr(Ordered("dpmpp", 1221))


def test_patterns_rise_and_fall():
    found = list(patterns(6, 3))
    assert len(set(found)) == len(found)
    assert (1, 2, 3, 3, 2, 1) in found and (1,) * 6 in found and (1, 2, 3, 3, 3, 3) in found
    for orders in found:
        steps = [after - before for before, after in zip(orders, orders[1:], strict=False)]
        assert orders[0] == 1 and max(orders) <= 3 and min(orders) >= 1 and set(steps) <= {-1, 0, 1}
        assert -1 not in steps or 1 not in steps[steps.index(-1) :]


@pytest.mark.parametrize("process", [VP, fs.processes.EDM(), fs.processes.RectifiedFlow()], ids=repr)
@pytest.mark.parametrize("power", [1, 2])
def test_the_bound_is_no_higher_than_with_the_fixed_orders(process, power):
    plain = fs.grids.optimized(process, fs.DPMSolverPP(3), 5, error_power=power)
    solver, grid = optimized_orders(process, fs.DPMSolverPP(3), 5, objective="bound", error_power=power)
    assert solver.orders == 11111  # Positive weights that add up to one: any extrapolation adds to the bound.
    assert grid.report.after <= plain.report.after * (1 + 1e-12)
    bound = Bound(process, solver, power, to_zero=grid.ends_at_zero)(grid.times[None])
    assert float(bound[0]) == pytest.approx(grid.report.after, rel=1e-12)
    assert solver.plan(grid).nfe == 5


def test_the_error_on_a_spectrum_is_no_higher_than_with_the_fixed_orders():
    plain = fs.grids.optimized(VP, fs.UniPC(3), 5)
    solver, grid = optimized_orders(VP, fs.UniPC(3), 5)
    assert grid.report.after <= plain.report.after * (1 + 1e-12) and grid.report.objective == "spectrum"
    assert solver.orders > 11111


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: Ordered(Ordered("unipc", 12), 12), "give a multistep one"),
        (lambda: Ordered("unipc", (1, 4)), "an order is 4"),
        (lambda: Ordered("unipc", ()), "orders is empty"),
        (lambda: Ordered("unipc", 1.5), "orders is 1.5"),
        (lambda: Ordered("unipc", (1, 2)).plan(fs.grids.karras(VP, 3)), "2 orders for 3 steps"),
        (lambda: optimized_orders(VP, "unipc", 21), "at most 20"),
    ],
)
def test_mistakes_are_answered(call, match):
    with pytest.raises(InputError, match=match):
        call()

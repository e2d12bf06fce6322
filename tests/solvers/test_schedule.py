"""Which row comes when: orders, calls, and where noise is read."""

import pytest

import fewstep as fs

VP = fs.processes.VPLinear()


def nodes(plan: fs.Plan) -> list[int]:
    """Return how many predictions each row looks at."""
    return [sum(weight != 0 for weight in row.history_weights) for row in plan.rows]


def test_orders_rise_and_fall():
    grid = fs.grids.uniform_logsnr(VP, 8)
    assert nodes(fs.DPMSolverPP(3).plan(grid)) == [1, 2, 3, 3, 3, 3, 2, 1]
    assert nodes(fs.DPMSolverPP(3, lower_order_final=False).plan(grid)) == [1, 2, 3, 3, 3, 3, 3, 3]
    assert nodes(fs.UniPC(3).plan(grid)) == [1, 2, 2, 3, 3, 4, 3, 4, 3, 4, 3, 4, 2, 3, 1]


@pytest.mark.parametrize("lower", [True, False])
def test_the_last_interval_to_the_noise_free_end_is_first_order(lower):
    plan = fs.UniPC(3, lower_order_final=lower).plan(fs.grids.uniform_logsnr(VP, 6, end="zero"))
    assert nodes(plan)[-1] == 1
    assert plan.rows[-1].state_weight == 0.0 and plan.rows[-1].history_weights[0] == 1.0


@pytest.mark.parametrize(
    ("orders", "mode", "wanted"),
    [
        ("paper", "PEC", [1, 2, 2, 3, 3, 4, 3, 4, 2, 3, 1, 2, 1]),
        ("diffusers", "PEC", [1, 2, 2, 3, 3, 4, 3, 4, 3, 4, 2, 3, 1]),
        ("comfyui", "PEC", [1, 2, 2, 3, 3, 4, 3, 3, 2, 2, 1, 1]),
        ("comfyui", "PECE", [1, 2, 2, 3, 3, 4, 3, 3, 2, 2, 1, 1, 1]),
    ],
)
def test_the_three_rules_by_which_the_orders_of_sa_solver_fall(orders, mode, wanted):
    plan = fs.SASolver(3, 4, tau=1.0, mode=mode, orders=orders).plan(fs.grids.uniform_logsnr(VP, 7, end="zero"))
    assert nodes(plan) == wanted


def test_the_authors_rule_is_that_of_the_many_step_form():
    grid = fs.grids.uniform_logsnr(VP, 7, end="zero")
    assert nodes(fs.SASolver(3, 4).plan(grid)) == nodes(fs.SASolver(3, 4, orders="paper").plan(grid))
    few = [fs.SASolver(3, 4, few_step=True, orders=orders).plan(grid) for orders in (None, "diffusers")]
    assert nodes(few[0]) == nodes(few[1])


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
@pytest.mark.parametrize(
    ("solver", "calls", "calls_to_zero"),
    [
        (fs.Euler(), lambda n: n, lambda n: n),
        (fs.UniPC(3), lambda n: n, lambda n: n),
        (fs.DPMSolverPP(3), lambda n: n, lambda n: n),
        (fs.Heun(), lambda n: 2 * n, lambda n: 2 * n - 1),
        (fs.SASolver(3, 0, tau=1.0), lambda n: n, lambda n: n),
        (fs.SASolver(3, 3, tau=1.0, few_step=True), lambda n: n, lambda n: n),
        (fs.SASolver(3, 3, tau=1.0), lambda n: n + 1, lambda n: n + 1 if n > 1 else 1),
        (fs.SASolver(3, 3, tau=1.0, mode="PECE"), lambda n: 2 * n, lambda n: 2 * n - 1),
        (fs.SASolver(3, 4, tau=1.0, orders="comfyui"), lambda n: n, lambda n: n),
        (fs.SASolver(3, 4, tau=1.0, mode="PECE", orders="comfyui"), lambda n: 2 * n - 1, lambda n: 2 * n - 1),
    ],
    ids=lambda value: "" if callable(value) else repr(value),
)
def test_calls(solver, calls, calls_to_zero, steps):
    assert solver.plan(fs.grids.uniform_logsnr(VP, steps)).nfe == calls(steps)
    assert solver.plan(fs.grids.uniform_logsnr(VP, steps, end="zero")).nfe == calls_to_zero(steps)


def test_tau_is_read_at_the_end_of_each_interval():
    grid = fs.TimeGrid(fs.processes.EDM(), [80.0, 10.0, 0.9, 0.3, 0.06, 0.01])
    plan = fs.SASolver(1, 0, tau=fs.tau.window(1.0, 0.05, 1.0)).plan(grid)
    assert [row.noise_scale > 0 for row in plan.rows] == [False, True, True, True, False]


def test_a_tau_function_may_look_at_the_point_as_a_number():
    grid = fs.grids.karras(fs.processes.EDM(), 6)
    window = fs.SASolver(tau=fs.tau.window(0.7, 0.05, 1.0)).plan(grid)
    function = fs.SASolver(tau=lambda p: 0.7 if 0.05 <= p.sigma / p.alpha <= 1.0 else 0.0).plan(grid)
    assert [row.noise_scale for row in function.rows] == pytest.approx([row.noise_scale for row in window.rows])


def test_predictor_and_corrector_share_their_noise():
    for row, after in zip(
        *(lambda r: (r, r[1:]))(fs.SASolver(3, 4, tau=1.0).plan(fs.grids.karras(VP, 6)).rows), strict=False
    ):
        if row.interval == after.interval:
            assert row.noise_scale == after.noise_scale > 0

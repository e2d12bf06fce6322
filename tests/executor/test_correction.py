"""The hook on the state."""

import pytest
import torch
from support.exact import GaussianMixture

import fewstep as fs
from fewstep.errors import InputError

VP = fs.processes.VPLinear()
SOLVERS = [fs.UniPC(2), fs.SASolver(3, 4, tau=0.0), fs.SASolver(2, 2, tau=0.0, mode="PECE"), fs.DDIM(), fs.Heun()]
X = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def halved(x, t, n):
    return 0.9 * x + 0.01 * n + 0.1 * t


def by_hand(plan, model, x):
    """Run a plan row by row: evaluate, and change the state at the end of each interval."""
    base, current, history, interval, time = x, x, [], 0, plan.times[0]
    rows = plan.rows
    for i, row in enumerate(rows):
        if row.interval != interval:
            base, interval = current, row.interval
        if row.evaluate:
            history.insert(0, model(current, time))
        if i == 0:
            base = halved(base, time, 0)
        current = row.state_weight * base + sum(w * d for w, d in zip(row.history_weights, history, strict=False))
        time = plan.times[row.interval + 1]
        if i + 1 == len(rows) or rows[i + 1].interval != row.interval:
            current = halved(current, time, row.interval + 1)
    return current


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize("end", [None, "zero"])
def test_the_state_at_each_grid_point_is_changed(solver, end):
    plan, model = solver.plan(fs.grids.uniform_logsnr(VP, 6, end=end)), GaussianMixture.example(VP)
    got = fs.execute(plan, model, X, correct_x_t=halved)
    torch.testing.assert_close(got, by_hand(plan, model, X), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_points_times_and_no_change(solver):
    grid, model, seen = fs.grids.uniform_logsnr(VP, 6), GaussianMixture.example(VP), []

    def same(x, t, n):
        seen.append((n, float(t)))
        return x

    got = fs.sample(model, solver, grid, X, correct_x_t=same)
    assert seen == list(enumerate(grid.times.tolist()))
    # Folded or not, rows are sums of the same terms in another order.
    torch.testing.assert_close(got, fs.sample(model, solver, grid, X), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("wrong", [lambda x, t, n: None, lambda x, t, n: x[:1]])
def test_mistakes_are_answered(wrong):
    plan, model = fs.UniPC(2).plan(fs.grids.uniform_logsnr(VP, 3)), GaussianMixture.example(VP)
    with pytest.raises(InputError, match="correct_x_t returned"):
        fs.execute(plan, model, X, correct_x_t=wrong)
    with pytest.raises(InputError, match="correct_x_t is 3"):
        fs.execute(plan, model, X, correct_x_t=3)

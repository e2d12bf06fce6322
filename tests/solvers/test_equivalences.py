"""Every equivalence that a docstring states, to 1e-12."""

import pytest
import torch
from support.exact import GaussianMixture

import fewstep as fs

VP = fs.processes.VPLinear()
PROCESSES = [VP, fs.processes.VPDiscrete.from_betas(), fs.processes.EDM(), fs.processes.RectifiedFlow(shift=3.0)]
each_process = pytest.mark.parametrize("process", PROCESSES, ids=repr)


def assert_same_rows(one: fs.Plan, other: fs.Plan) -> None:
    assert len(one.rows) == len(other.rows)
    for left, right in zip(one.rows, other.rows, strict=True):
        assert (left.interval, left.evaluate) == (right.interval, right.evaluate)
        assert left.state_weight == pytest.approx(right.state_weight, abs=1e-12)
        assert left.noise_scale == pytest.approx(right.noise_scale, abs=1e-12)
        width = max(len(left.history_weights), len(right.history_weights))
        pad = [[*row.history_weights, *[0.0] * (width - len(row.history_weights))] for row in (left, right)]
        assert pad[0] == pytest.approx(pad[1], rel=1e-11, abs=1e-12)


@each_process
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (fs.Euler(), fs.DDIM(eta=0.0)),
        (fs.Euler(), fs.DPMSolverPP(order=1)),
        (fs.Euler(), fs.UniPC(order=1, corrector=False)),
        (fs.Euler(), fs.SASolver(1, 0, tau=0.0)),
        (fs.DPMSolverPP(2), fs.UniPC(2, "bh2", corrector=False)),
        (fs.UniPC(3, "exact", corrector=False), fs.SASolver(3, 0, tau=0.0, orders="diffusers")),
        (
            fs.UniPC(3, "exact", corrector=False, lower_order_final=False),
            fs.SASolver(3, 0, tau=0.0, lower_order_final=False),
        ),
        (fs.DPMSolverPP(1), fs.DPMSolverPP(1, "published")),
        (fs.DPMSolverPP(2), fs.DPMSolverPP(2, "published")),
        (fs.DEIS(3), fs.SASolver(3, 0, tau=0.0, prediction="epsilon", orders="diffusers")),
        (fs.DDIM(eta=1.0), fs.SASolver(1, 0, tau=1.0)),
        (fs.SASolver(2, 2, tau=0.0, few_step=True), fs.UniPC(2, "bh1", corrector=False)),
    ],
    ids=lambda solver: repr(solver)[:40],
)
def test_rows_are_the_same(process, one, other):
    grid = fs.grids.uniform_logsnr(process, 7)
    if isinstance(one, fs.SASolver) and one.few_step:
        one = fs.SASolver(2, 0, tau=0.0, few_step=True)
    assert_same_rows(one.plan(grid), other.plan(grid))


@each_process
@pytest.mark.parametrize("eta", [0.3, 0.8])
def test_ddim_with_eta_is_first_order_sa_with_its_tau(process, eta):
    grid = fs.grids.uniform_logsnr(process, 6)
    step = {float(t): float(h) for t, h in zip(grid.times[1:], grid.half_logsnr.diff(), strict=True)}

    def tau(point):
        h = torch.tensor(step[float(point.t)], dtype=torch.float64)
        if torch.isinf(h):
            return 0.0
        return torch.sqrt(-0.5 * torch.log1p(eta**2 * torch.expm1(-2 * h)) / h)

    assert_same_rows(fs.DDIM(eta).plan(grid), fs.SASolver(1, 0, tau=tau).plan(grid))


@each_process
@pytest.mark.parametrize("solver", [fs.DEIS(1), fs.IPNDM(1)], ids=repr)
def test_first_order_over_noise_predictions_is_euler_in_what_it_does(process, solver):
    grid = fs.grids.uniform_logsnr(process, 6)
    gains, weights = zip(*(one.plan(grid).unrolled() for one in (solver, fs.Euler())), strict=True)
    assert float(gains[0]) == pytest.approx(float(gains[1]), abs=1e-12)
    assert torch.allclose(weights[0], weights[1], atol=1e-9)


@each_process
def test_the_rules_of_orders_are_one_on_grids_that_end_before(process):
    grid = fs.grids.uniform_logsnr(process, 7, end=process.t_min)
    one, other = (fs.SASolver(3, 4, tau=0.5, orders=orders).plan(grid) for orders in ("paper", "diffusers"))
    assert_same_rows(one, other)


@pytest.mark.parametrize("process", [fs.processes.RectifiedFlow(shift=3.0), fs.processes.RectifiedFlow()], ids=repr)
def test_heun_in_time_is_heuns_method_on_a_flows_velocity(process):
    grid = fs.grids.uniform_time(process, 6, start="noise")
    assert grid.starts_at_pure_noise and grid.ends_at_zero
    model = GaussianMixture.example(process)
    x = torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def velocity(x, t):
        return (x - model(x, t)) / t

    got, state = fs.sample(model, fs.Heun(), grid, x), x
    for t, end in zip(grid.times, grid.times[1:], strict=False):
        slope = velocity(state, t)
        moved = state + (end - t) * slope
        state = moved if end == 0 else state + (end - t) * 0.5 * (slope + velocity(moved, end))
    assert torch.allclose(got, state, rtol=0, atol=1e-12)


def test_heun_in_time_is_heun_in_the_ratio_for_edm():
    grid = fs.grids.karras(fs.processes.EDM(), 6)
    assert_same_rows(fs.Heun("time").plan(grid), fs.Heun("ratio").plan(grid))


def test_euler_is_eulers_method_on_a_flows_velocity():
    process = fs.processes.RectifiedFlow()
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grid = fs.grids.uniform_time(process, 9)

    def velocity(x, t):
        return torch.sin(3 * x) + t * x

    denoiser = fs.Denoiser(lambda x, t: velocity(x, t.view(-1, 1)), process, "flow")
    got = fs.sample(denoiser, fs.Euler(), grid, x)
    for t, after in zip(grid.times[:-1], grid.times[1:], strict=True):
        x = x + (after - t) * velocity(x, t)
    assert torch.allclose(got, x, atol=1e-12)


def test_heun_is_edms_algorithm():
    process = fs.processes.EDM()
    x = 80.0 * torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grid = fs.grids.karras(process, 8)

    def denoise(x, sigma):
        return x / (1 + sigma**2) + torch.tanh(x / (1 + sigma))

    got = fs.sample(denoise, fs.Heun(), grid, x)
    for t, after in zip(grid.times[:-1], grid.times[1:], strict=True):
        slope = (x - denoise(x, t)) / t
        guess = x + (after - t) * slope
        if after > 0:
            slope = (slope + (guess - denoise(guess, after)) / after) / 2
        x = x + (after - t) * slope
    assert torch.allclose(got, x, rtol=1e-12, atol=1e-12)


def test_the_few_step_form_of_sa_is_that_of_its_appendix():
    """Second-order predictor with h²/2 and corrector with h/2 in place of the exact integrals."""
    tau, c = 0.8, 1 + 0.8**2
    grid = fs.grids.uniform_logsnr(VP, 5)
    rows = fs.SASolver(2, 2, tau=tau, few_step=True).plan(grid).rows
    lam, alpha, sigma = grid.half_logsnr, grid.alpha, grid.sigma
    n = 2
    h, before = lam[n + 1] - lam[n], lam[n] - lam[n - 1]
    decay = sigma[n + 1] / sigma[n] * torch.exp(-(tau**2) * h)
    total = -torch.expm1(-c * h)
    slope = c * h**2 / 2 / before
    predictor, corrector = [row for row in rows if row.interval == n]
    assert predictor.state_weight == pytest.approx(float(decay), abs=1e-12)
    assert predictor.history_weights[:2] == pytest.approx(
        [float(alpha[n + 1] * (total + slope)), float(-alpha[n + 1] * slope)]
    )
    assert corrector.history_weights[:2] == pytest.approx(
        [float(alpha[n + 1] * c * h / 2), float(alpha[n + 1] * (total - c * h / 2))], abs=1e-12
    )
    noise = sigma[n + 1] * torch.sqrt(-torch.expm1(-2 * tau**2 * h))
    assert predictor.noise_scale == corrector.noise_scale == pytest.approx(float(noise), abs=1e-12)
    last = [row for row in rows if row.interval == 4]
    assert len(last) == 1 and last[0].noise_scale == 0.0

"""The closed form of plans on Gaussian data, against samples of a Gaussian model with a spectrum."""

import pytest
import torch
from support.exact import Gaussian, output_moments
from support.gaussian_field import GaussianField
from support.solvers import SOLVERS

import fewstep as fs
from fewstep.spectra.gaussian import end_errors, exact_gain, exact_std, interval_errors, local_errors, response

PROCESSES = {
    "vp-linear": fs.processes.VPLinear(),
    "vp-cosine": fs.processes.VPCosine(),
    "vp-discrete": fs.processes.VPDiscrete.from_betas(),
    "edm": fs.processes.EDM(),
    "flow": fs.processes.RectifiedFlow(shift=3.0),
}
ANALYTIC = [fs.DDIM(analytic_first=True), fs.UniPC(3, analytic_first=True), fs.DEIS(2, analytic_first=True)]
DETERMINISTIC = [s for s in SOLVERS if not s.plan(fs.grids.karras(fs.processes.EDM(), 4)).stochastic]
"""Those that have an error to a solution; of the others means and variances are all that can be measured."""
SHAPES = [(2, 8, 8), (1, 4, 6, 5)]
EXACT = 1e-10
VARIANCES = torch.logspace(-4, 2, 13, dtype=torch.float64)


def field_and_plan(process, shape, solver, steps=7):
    plan = solver.plan(fs.grids.uniform_logsnr(process, steps, end="zero"))
    return GaussianField(process, shape), plan


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("solver", [*SOLVERS, *ANALYTIC], ids=repr)
def test_samples_are_what_the_closed_form_says(solver, process, shape):
    """x_N = gain·x_T + Σ noise·ξ in each mode: means and variances of ``fs.sample``, measured without chance.

    Sample 0 starts at x_T and has no noise; sample n + 1 starts at 0 and has noise in interval n alone.
    """
    model, plan = field_and_plan(process, shape, solver)
    found = response(plan, model.variances.flatten())
    count = 1 + plan.steps if plan.stochastic else 1
    unit = model.unit(1).expand(count, *shape)
    x_T = unit.clone()
    x_T[1:] = 0.0
    x_T = model.modes(model.modes(x_T) * model.std(plan.times[0]), back=True)
    starts = process.sigma(plan.times[:-1])

    def noise(sigma, sigma_next):
        interval = int((starts - sigma).abs().argmin())
        one = torch.zeros(count, *shape, dtype=torch.float64)
        one[interval + 1] = unit[interval + 1]
        return one

    made = fs.sample(model, solver, plan.grid, x_T, noise_sampler=noise if plan.stochastic else None)
    modes = (model.modes(made) / model.modes(unit)).real.flatten(2)
    start = model.std(plan.times[0]).flatten()
    wanted = torch.cat([(found.gain * start)[None], found.noise if plan.stochastic else found.noise[:0]])
    size = EXACT * float(wanted.abs().max().clamp(min=1.0))
    torch.testing.assert_close(modes, wanted[:, None].expand_as(modes), rtol=0, atol=size)
    measured = modes.square().sum(0).sqrt()
    torch.testing.assert_close(measured, found.std(start).expand_as(measured), rtol=0, atol=size)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("solver", DETERMINISTIC, ids=repr)
def test_the_measured_error_is_the_predicted_one(solver, process, shape):
    """RMSE of ``fs.sample`` to the solution, over noise whose modes all have their standard deviation."""
    model, plan = field_and_plan(process, shape, solver)
    x_T = model.modes(model.modes(model.unit(3)) * model.std(plan.times[0]), back=True)
    gain = exact_gain(plan, model.variances.flatten()).view(model.variances.shape)
    solution = model.modes(model.modes(x_T) * gain, back=True)
    measured = (fs.sample(model, solver, plan.grid, x_T) - solution).square().mean().sqrt()
    predicted = end_errors(plan, model.variances.flatten()).square().mean().sqrt()
    assert float(measured) == pytest.approx(float(predicted), abs=EXACT)


def test_a_mean_changes_nothing():
    process, solver = PROCESSES["vp-linear"], fs.UniPC(3)
    grid = fs.grids.uniform_logsnr(process, 6, end="zero")
    zero, one = GaussianField(process, (1, 6, 6)), GaussianField(process, (1, 6, 6), mean=0.7)
    x_T = zero.unit(2)
    shifted = x_T + float(process.alpha(grid.times[0])) * 0.7
    torch.testing.assert_close(fs.sample(one, solver, grid, shifted) - 0.7, fs.sample(zero, solver, grid, x_T))


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_it_agrees_with_the_moments_of_one_mode(solver):
    process = PROCESSES["vp-linear"]
    plan = solver.plan(fs.grids.uniform_logsnr(process, 6))
    for std in (0.1, 1.0, 3.0):
        mean, variance = output_moments(plan, Gaussian(process, mean=0.0, std=std))
        v = torch.tensor([std**2], dtype=torch.float64)
        assert mean == 0.0
        assert float(response(plan, v).std(exact_std(plan, v)[0])[0] ** 2) == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_an_interval_alone_errs_by_what_it_adds_to_the_end(solver):
    """With one interval there is nothing before it: what it adds is the whole error."""
    for process in PROCESSES.values():
        for end in (None, "zero"):
            plan = solver.plan(fs.grids.uniform_logsnr(process, 1, end=end))
            torch.testing.assert_close(local_errors(plan, VARIANCES)[0], end_errors(plan, VARIANCES))


@pytest.mark.parametrize(
    "solver", [fs.DDIM(), fs.DDIM(1.0), fs.UniPC(3), fs.DEIS(3), fs.SASolver(3, 3, tau=0.8)], ids=repr
)
def test_what_intervals_add_is_the_error_to_first_order(solver):
    """Their sum comes near the error as steps get short: what is left out are products of errors."""
    ratios = []
    for steps in (40, 160):
        plan = solver.plan(fs.grids.uniform_logsnr(PROCESSES["vp-linear"], steps))
        v = torch.tensor([0.01, 0.1, 1.0], dtype=torch.float64)
        off = local_errors(plan, v).sum(0) - end_errors(plan, v)
        ratios.append(float(off.abs().max() / end_errors(plan, v).abs().max()))
    assert ratios[1] < 0.5 * ratios[0] and ratios[1] < 0.3


def test_the_first_interval_of_ddim_by_hand():
    """a·m_0 + (α_1 − a·α_0)·g·m_0 less m_1, with a = σ_1/σ_0, and carried to the end by m_2/m_1."""
    process, v = PROCESSES["vp-linear"], 0.3
    plan = fs.DDIM().plan(fs.TimeGrid(process, [1.0, 0.4, 0.1]))
    (a0, a1, a2), (s0, s1, s2) = process.alpha(plan.times), process.sigma(plan.times)
    m0, m1, m2 = (torch.sqrt(a**2 * v + s**2) for a, s in ((a0, s0), (a1, s1), (a2, s2)))
    made = s1 / s0 * m0 + (a1 - s1 / s0 * a0) * a0 * v / m0
    got = local_errors(plan, torch.tensor([v], dtype=torch.float64))[0, 0]
    assert float(got) == pytest.approx(float((made - m1) * m2 / m1), rel=1e-12)


def test_ancestral_steps_of_infinite_variance_are_exact():
    """Where the data are known from any state, DDIM with η = 1 draws from the true posterior."""
    plan = fs.DDIM(1.0).plan(fs.grids.uniform_logsnr(PROCESSES["vp-linear"], 5, end="zero"))
    v = torch.tensor([1e12], dtype=torch.float64)
    assert float(local_errors(plan, v).abs().max() / v.sqrt()) < 1e-6


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_batch_of_plans_is_each_plan(solver):
    process = PROCESSES["edm"]
    grids = [fs.grids.karras(process, 6), fs.grids.uniform_logsnr(process, 6)]
    batch = solver.plan(fs.TimeGrid(process, torch.stack([grid.times for grid in grids])))
    for function in (local_errors, end_errors, exact_gain):
        together = function(batch, VARIANCES)
        for one, grid in zip(together, grids, strict=True):
            torch.testing.assert_close(one, function(solver.plan(grid), VARIANCES), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver", [fs.UniPC(3), fs.DEIS(3), fs.Heun(), fs.SASolver(3, 4, tau=0.7)], ids=repr)
def test_it_can_be_differentiated_in_the_times(solver):
    process = PROCESSES["vp-linear"]
    times = fs.grids.uniform_logsnr(process, 6, end="zero").times

    def error(inner):
        plan = solver.plan(fs.TimeGrid(process, torch.cat([times[:1], inner, times[-1:]])))
        return interval_errors(plan, VARIANCES, torch.ones_like(VARIANCES)).sum()

    inner = times[1:-1].clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(error(inner), inner)
    shift = 1e-6 * torch.eye(5, dtype=torch.float64)
    numeric = torch.stack([error(times[1:-1] + d) - error(times[1:-1] - d) for d in shift]) / 2e-6
    torch.testing.assert_close(slope, numeric, rtol=1e-4, atol=1e-4 * float(slope.abs().max()))

"""τ presets and windows of time."""

import pytest
import torch

import fewstep as fs
from fewstep.errors import InputError


@pytest.mark.parametrize(("name", "low", "high"), [("cifar10-edm", 0.05, 1.0), ("imagenet64-edm", 0.05, 50.0)])
def test_presets_of_edm_networks(name, low, high):
    grid = fs.grids.karras(fs.processes.EDM(), 20)
    tau = fs.tau.preset(name).at(grid)
    ends = (grid.sigma / grid.alpha)[1:]
    assert torch.equal(tau, ((ends >= low) & (ends <= high)).double())
    assert 0 < float(tau.sum()) < 20
    plan = fs.SASolver(tau=name).plan(grid)
    assert torch.equal(plan.noise_scale, fs.SASolver(tau=fs.tau.window(1.0, low, high)).plan(grid).noise_scale)


@pytest.mark.parametrize("name", ["stable-diffusion", "latent-diffusion"])
def test_presets_of_latent_networks_are_the_public_codes_timesteps(name):
    process = fs.processes.VPDiscrete.from_betas()
    grid = fs.grids.uniform_time(process, 50)
    tau = fs.tau.preset(name).at(grid)
    assert torch.equal(tau, ((grid.times[1:] >= 0.2) & (grid.times[1:] <= 0.8)).double()) and float(tau.sum()) == 30
    with pytest.raises(InputError, match="processes whose times are 0 to 1"):
        fs.SASolver(tau=name).plan(fs.grids.karras(fs.processes.EDM(), 5))


def test_names_are_words_of_the_solver():
    solver = fs.solvers.named("sa:tau=cifar10-edm,predictor_order=2")
    assert solver == fs.SASolver(2, tau="cifar10-edm") and "cifar10-edm" in repr(solver)
    assert fs.solvers.named(fs.solvers.spelled(solver)) == solver
    with pytest.raises(InputError, match="did you mean|cifar10-edm"):
        fs.SASolver(tau="cifar-edm")


def test_a_number_for_each_step():
    grid, tau = fs.grids.karras(fs.processes.EDM(), 3), (0.3, 0.0, 1.5)
    solver = fs.SASolver(2, 0, tau=list(tau))
    assert torch.equal(fs.tau.as_tau(tau).at(grid), torch.tensor(tau, dtype=torch.float64))
    assert solver == fs.SASolver(2, 0, tau=tau) and "tau=(0.3, 0.0, 1.5)" in repr(solver)
    words = "sa:predictor_order=2,corrector_order=0,tau=(0.3,0.0,1.5)"
    assert fs.solvers.named(fs.solvers.spelled(solver)) == solver == fs.solvers.named(words)
    same = fs.SASolver(3, 3, tau=(0.7,) * 3).plan(grid), fs.SASolver(3, 3, tau=0.7).plan(grid)
    assert str(same[0]).splitlines()[1:] == str(same[1]).splitlines()[1:]
    with pytest.raises(InputError, match="tau has length 2, the grid has 3 steps"):
        fs.SASolver(tau=(0.3, 0.5)).plan(grid)
    for wrong in ((), (0.3, -0.1), (0.3, "much")):
        with pytest.raises(InputError, match="tau is"):
            fs.SASolver(tau=wrong)


def test_numbers_for_a_batch_of_grids():
    process = fs.processes.EDM()
    grids = [fs.grids.karras(process, 3, rho=rho) for rho in (5, 7)]
    batch = fs.TimeGrid(process, torch.stack([grid.times for grid in grids]))
    solver = fs.SASolver(2, 2, tau=(0.3, 0.5, 0.0), few_step=True)
    made = solver.plan(batch).noise_scale
    assert torch.equal(made, torch.stack([solver.plan(grid).noise_scale for grid in grids]))


@pytest.mark.parametrize("window", [(0.8, 0.2), (-0.1, 0.5), (0.2, 1.5), (0.2, None)])
def test_windows_of_time(window):
    with pytest.raises(InputError, match="the window of times"):
        fs.tau.time_window(1.0, *window)

"""Agreement with the installed diffusers on the same sigmas, in float64."""

from dataclasses import replace

import pytest
import torch
from support.exact import GaussianMixture

import fewstep as fs

diffusers = pytest.importorskip("diffusers")
PROCESS = fs.processes.VPDiscrete.from_betas()


SETTINGS = {"beta_schedule": "linear", "use_karras_sigmas": True}


def run_peer(scheduler, steps: int, stop: int, model: GaussianMixture, x: torch.Tensor):
    """Run ``stop`` of ``steps`` steps of a scheduler of diffusers; return x and its own sigmas as our grid.

    The model is asked at the scheduler's sigmas, not at its rounded timesteps.
    """
    scheduler.set_timesteps(steps)
    levels = scheduler.sigmas.double()[: stop + 1]
    times = PROCESS.time(-levels.log())
    grid = fs.TimeGrid(PROCESS, torch.where(levels == 0, torch.zeros_like(times), times))
    for i, timestep in enumerate(scheduler.timesteps[:stop]):
        noise = (x - grid.alpha[i] * model(x, grid.times[i])) / grid.sigma[i]
        x = scheduler.step(noise, timestep, x, return_dict=False)[0]
    return x, grid


def distance(scheduler, solver: fs.Solver, steps: int, stop: int) -> float:
    """Return the relative distance of our samples from the peer's."""
    model = GaussianMixture.example(PROCESS)
    x = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theirs, grid = run_peer(scheduler, steps, stop, model, x)
    return float((fs.sample(model, solver, grid, x) - theirs).norm() / theirs.norm())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("steps", [5, 10, 14])
@pytest.mark.parametrize(
    ("scheduler", "order", "solver"),
    [
        ("DPMSolverMultistepScheduler", 2, fs.DPMSolverPP(2)),
        ("DPMSolverMultistepScheduler", 3, fs.DPMSolverPP(3, "published")),
        ("UniPCMultistepScheduler", 2, fs.UniPC(2)),
        ("UniPCMultistepScheduler", 3, fs.UniPC(3)),
    ],
)
def test_same_sigmas_same_samples(scheduler, order, solver, steps):
    peer = getattr(diffusers, scheduler)(solver_order=order, **SETTINGS)
    assert distance(peer, solver, steps, steps) < 1e-3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("steps", "lower"), [(6, True), (14, True), (15, False), (20, False)])
@pytest.mark.parametrize(
    ("scheduler", "settings", "solver"),
    [
        ("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min"}, fs.DPMSolverPP(2)),
        ("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min"}, fs.DPMSolverPP(3, "published")),
        ("DPMSolverMultistepScheduler", {"final_sigmas_type": "zero"}, fs.DPMSolverPP(3, "published")),
        ("DEISMultistepScheduler", {}, fs.DEIS(2)),
        ("DEISMultistepScheduler", {}, fs.DEIS(3)),
    ],
)
def test_from_15_steps_on_diffusers_takes_no_lower_order_at_the_end(scheduler, settings, solver, steps, lower):
    peer = getattr(diffusers, scheduler)(solver_order=solver.order, beta_schedule="linear", **settings)
    assert distance(peer, replace(solver, lower_order_final=lower), steps, steps) < 1e-3
    assert distance(peer, replace(solver, lower_order_final=not lower), steps, steps) > 1e-3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("steps", [6, 12])
@pytest.mark.parametrize(
    ("scheduler", "settings", "solver"),
    [
        ("UniPCMultistepScheduler", {"solver_type": "bh1"}, fs.UniPC(3, "bh1", lower_order_final=False)),
        ("DEISMultistepScheduler", {}, fs.DEIS(3, lower_order_final=False)),
    ],
)
def test_same_sigmas_same_samples_before_the_last_step(scheduler, settings, solver, steps):
    """Diffusers' bh1 gives NaN in a last step to σ = 0, and its DEIS makes that step zero long."""
    peer = getattr(diffusers, scheduler)(solver_order=3, lower_order_final=False, **settings, **SETTINGS)
    assert distance(peer, solver, steps, steps - 1) < 1e-3

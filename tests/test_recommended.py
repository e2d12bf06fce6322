"""The recommended solver and grid: one rule for the command line and ``fs.enable``."""

import pytest
import torch

import fewstep as fs
from fewstep.cli.settings.sample import SampleSettings
from fewstep.cli.shared.sampler import Asked
from fewstep.models.model import Model
from fewstep.recommended import bound_for, recommended

PROCESSES = {
    "flow": fs.processes.RectifiedFlow(3.0),
    "edm": fs.processes.EDM(),
    "discrete": fs.processes.VPDiscrete.from_betas(),
    "linear": fs.processes.VPLinear(),
}


@pytest.mark.parametrize("latent", [False, True])
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_what_is_recommended_can_be_made(process, latent):
    for steps in (1, 4, 6, 8, 10, 20):
        rule = recommended(process, steps, latent=latent)
        solver = fs.solvers.named(rule.solver)
        assert solver.plan(fs.grids.named(rule.grid, process, steps, solver=solver)).steps == steps


@pytest.mark.parametrize("steps", [5, 8, 12])
def test_the_command_line_and_enable_follow_it(steps):
    diffusers = pytest.importorskip("diffusers")
    from fewstep.integrations.diffusers.recommended import recommended as of_pipeline

    process = fs.processes.VPDiscrete.from_betas()
    scheduler = diffusers.DDIMScheduler(beta_schedule="linear")
    for latent in (False, True):
        rule = recommended(process, steps, latent=latent)
        model = Model(fs.Denoiser(lambda x, t: x, process), decode=(lambda x: x) if latent else None)
        assert Asked.of(SampleSettings(steps=steps)).words(model) == {
            "solver": rule.solver,
            "grid": rule.grid,
            "steps": steps,
        }
        pipe = type("Pipe", (), {"vae": object() if latent else None})()
        made = fs.integrations.diffusers.FewStepScheduler(**of_pipeline(scheduler, pipe, steps))
        made.set_timesteps(steps)
        solver = fs.solvers.named(rule.solver)
        expected = fs.grids.named(rule.grid, made.grid.process, steps, made.grid.ends_at_zero and "zero", solver=solver)
        assert made.solver == solver and made.grid == expected


@pytest.mark.parametrize(("latent", "power"), [(True, 2), (False, 1)])
def test_the_bounds_power_is_that_of_the_space(latent, power):
    assert bound_for("optimized:objective=bound", latent=latent) == f"optimized:objective=bound,error_power={power}"
    assert bound_for("optimized:method=trust-constr", latent=latent).endswith(f",error_power={power}")
    for words in ("optimized", "karras", "optimized:objective=bound,error_power=3", "optimized:spectrum=latents"):
        assert bound_for(words, latent=latent) == words


def test_a_latent_pipeline_has_the_bound_of_latents_and_says_so():
    pytest.importorskip("diffusers")
    from support import tiny_pipelines as tiny

    pipe, _ = tiny.stable_diffusion()
    fs.enable(pipe, steps=4, solver="unipc:order=2", grid="optimized:objective=bound")
    assert "optimized:objective=bound,error_power=2" in str(fs.summary(pipe))
    pipe.scheduler.set_timesteps(4)
    expected = fs.grids.optimized(pipe.scheduler.grid.process, fs.UniPC(2), 4, end="zero", error_power=2)
    assert torch.allclose(pipe.scheduler.grid.times, expected.times, rtol=1e-6, atol=1e-9)

"""A solver that is added as CONTRIBUTING.md says: one class, here in a test, known everywhere by its name."""

import pytest
import torch
from support.exact import GaussianMixture

import fewstep as fs
from fewstep.errors import InputError


class MyEuler(fs.Solver):
    """Euler's method on x/α in the variable σ/α, by hand: x_end = (σ_end/σ)·x + (α_end − σ_end/σ·α)·D."""

    name = "my-euler"

    def table(self, grid):
        ratio = grid.sigma[..., 1:] / grid.sigma[..., :-1]
        return fs.Plan(
            grid=grid,
            interval=torch.arange(grid.steps),
            state_weight=ratio,
            history_weights=(grid.alpha[..., 1:] - ratio * grid.alpha[..., :-1])[..., None],
            noise_scale=torch.zeros_like(ratio),
            evaluate=torch.ones(grid.steps, dtype=torch.bool),
        )


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Register it for these tests alone: others list all solvers."""
    monkeypatch.setitem(fs.solvers.NAMES, MyEuler.name, MyEuler)


fs.solvers.NAMES.pop(MyEuler.name)
VP = fs.processes.VPLinear()


def test_it_is_planned_whatever_the_default_device_is():
    with torch.device("meta"):
        plan = fs.solvers.named("my-euler").plan(fs.grids.karras(VP, 5))
    assert plan.solver == "MyEuler()" and plan.nfe == 5 and plan.history_weights.device.type == "cpu"


def test_it_samples():
    grid = fs.grids.karras(fs.processes.EDM(), 6)
    x_T = 80.0 * torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got, expected = (fs.sample(GaussianMixture.example(grid.process), s, grid, x_T) for s in (MyEuler(), fs.Euler()))
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_its_time_steps_are_optimised():
    grid, expected = (fs.grids.optimized(VP, solver, 5) for solver in (MyEuler(), fs.Euler()))
    torch.testing.assert_close(grid.times, expected.times, rtol=1e-6, atol=1e-9)


def test_the_scheduler_knows_it():
    pytest.importorskip("diffusers")
    from fewstep.integrations.diffusers import FewStepScheduler

    ends = []
    for name in ("my-euler", "euler"):
        scheduler = FewStepScheduler(solver=name)
        scheduler.set_timesteps(5)
        x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        for t in scheduler.timesteps:
            x = scheduler.step(torch.tanh(x), t, x).prev_sample
        ends.append(x)
    torch.testing.assert_close(*ends)
    assert FewStepScheduler.from_config(FewStepScheduler(solver="my-euler").config).config.solver == "my-euler"


def test_settings_may_be_written_behind_the_name():
    pytest.importorskip("diffusers")
    from fewstep.integrations.diffusers import FewStepScheduler

    assert FewStepScheduler(solver="unipc:order=3,variant=bh1").solver == fs.UniPC(3, "bh1")
    with pytest.raises(InputError, match="unknown setting of solver 'my-euler' 'order': there is none"):
        FewStepScheduler(solver="my-euler:order=2")
    with pytest.raises(InputError, match="did you mean 'my-euler'"):
        FewStepScheduler(solver="my-eular")
    with pytest.raises(InputError, match=r"Heun.* makes 7 calls in 4 steps"):
        FewStepScheduler(solver="heun").set_timesteps(4)


def test_the_command_line_knows_it(tmp_path):
    testing = pytest.importorskip("typer.testing")
    from fewstep.cli.app import app

    words = ["--steps", "2", "--num", "2", "--seed", "0"]
    made = []
    for name in ("my-euler", "euler"):
        result = testing.CliRunner().invoke(
            app, ["sample", "--solver", name, *words, "--out", str(tmp_path / f"{name}.png")]
        )
        assert result.exit_code == 0, result.output
        made.append((tmp_path / f"{name}.png").read_bytes())
    assert made[0] == made[1]
    assert "my-euler" in testing.CliRunner().invoke(app, ["sample", "--list"]).output

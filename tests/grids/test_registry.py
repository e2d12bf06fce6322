"""Grids by name: a function registers itself, and is known to the command line and the scheduler."""

import pytest
import torch
from support.solvers import SOLVERS

import fewstep as fs
from fewstep.errors import InputError

VP = fs.processes.VPDiscrete.from_betas()


@pytest.fixture
def halving(monkeypatch):
    """A grid of a test's own: each time is a share of the one before."""
    names = dict(fs.grids.NAMES)

    @fs.grids.registered
    def halving(process, steps, *, share=0.5, end=None):
        """Return the grid whose times fall by a constant share."""
        return fs.TimeGrid(process, process.t_max * share ** torch.arange(steps + 1))

    yield halving
    fs.grids.NAMES.clear()
    fs.grids.NAMES.update(names)


def test_it_is_known_by_its_name_and_made_on_the_host(halving):
    with torch.device("meta"):
        grid = fs.grids.named("halving:share=0.7", VP, 4)
    assert grid.times.device.type == "cpu" and grid.times.tolist() == pytest.approx([0.7**n for n in range(5)])
    with pytest.raises(InputError, match="did you mean 'halving'"):
        fs.grids.named("halvin", VP, 4)


def test_a_name_belongs_to_one_function(halving):
    def karras(process, steps, *, end=None):
        return halving(process, steps)

    with pytest.raises(InputError, match=r"the grid 'karras' is fewstep\.grids\.heuristic\.karras already"):
        fs.grids.registered(karras)


def test_the_scheduler_knows_it(halving):
    pytest.importorskip("diffusers")
    from fewstep.integrations.diffusers import FewStepScheduler

    for spec in ("halving", "halving:share=0.7", "karras:rho=5", "quadratic_time"):
        scheduler = FewStepScheduler(grid=spec)
        scheduler.set_timesteps(5)
        expected = fs.grids.named(spec, scheduler.grid.process, 5, "zero")
        assert torch.equal(scheduler.grid.times, expected.times)
    with pytest.raises(InputError, match="did you mean 'halving'"):
        FewStepScheduler(grid="halfing:share=0.7")


def test_the_command_line_knows_it(halving, tmp_path):
    testing = pytest.importorskip("typer.testing")
    from fewstep.cli.app import app

    words = ["grid", "--grid", "halving:share=0.6", "--process", "vp-linear", "--steps", "3"]
    assert "0.216" in testing.CliRunner().invoke(app, words).output
    assert "halving" in testing.CliRunner().invoke(app, ["sample", "--list"]).output


@pytest.mark.parametrize("name", fs.grids.NAMES)
@pytest.mark.parametrize("process", [VP, fs.processes.EDM(), fs.processes.RectifiedFlow(3.0)], ids=repr)
def test_every_grid_falls_from_noise_to_data_in_the_steps_asked_for(name, process):
    for steps in (1, 2, 7):
        grid = fs.grids.named(name, process, steps, solver=fs.UniPC(2))
        assert grid.steps == steps and float(grid.times[0]) == process.t_max
        assert grid.ends_at_zero == process.ends_at_zero
        again = fs.TimeGrid.from_json(grid.to_json())
        assert torch.equal(again.times, grid.times) and again.process == process


@pytest.mark.parametrize("name", fs.grids.NAMES)
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_every_solver_plans_every_grid(name, solver):
    grid = fs.grids.named(name, fs.processes.RectifiedFlow(3.0), 4, solver=solver)
    assert solver.plan(grid).steps == 4

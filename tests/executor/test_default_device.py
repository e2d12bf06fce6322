"""``torch.set_default_device`` moves no table: the meta device stands for a GPU, where no value is on the host."""

import pytest
import torch
from support.solvers import SOLVERS

import fewstep as fs

PROCESSES = [
    fs.processes.VPDiscrete.from_betas,
    fs.processes.VPLinear,
    fs.processes.VPCosine,
    fs.processes.EDM,
    fs.processes.RectifiedFlow,
]


@pytest.fixture
def elsewhere():
    """Another default device, for the time of a test."""
    with torch.device("meta"):
        yield


@pytest.mark.parametrize("process", PROCESSES, ids=lambda made: made.__qualname__)
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_tables_are_made_on_the_host_and_run(process, solver, elsewhere):
    grid = fs.grids.uniform_logsnr(process(), 5)
    plan = solver.plan(grid)
    again = fs.Plan.from_json(plan.to_json())
    x_T = torch.ones(2, 3, device="cpu")
    made = [fs.execute(one, lambda x, t: 0.5 * x, x_T, seeds=range(2)) for one in (plan, again)]
    assert torch.equal(*made) and bool(torch.isfinite(made[0]).all())
    gain, weights = plan.unrolled()
    assert {part.device.type for part in (grid.times, plan.history_weights, plan.call_times, gain, weights)} == {"cpu"}


@pytest.mark.parametrize("name", fs.grids.NAMES)
def test_grids_are_made_on_the_host(name, elsewhere):
    grid = fs.grids.named(name, fs.processes.VPLinear(), 4, solver=fs.UniPC(2))
    assert grid.times.device.type == "cpu" and len(grid.times) == 5


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"solver": "sa"},
        {"grid": "optimized"},
        {"grid": "beta"},
        {"thresholding": True, "grid": "karras"},
        {"prediction_type": "flow_prediction"},
    ],
    ids=str,
)
def test_a_scheduler_steps_where_its_latents_are(settings, elsewhere):
    pytest.importorskip("diffusers")
    from fewstep.integrations.diffusers import FewStepScheduler

    scheduler = FewStepScheduler(**settings)
    scheduler.set_timesteps(4, device="cpu")
    x = torch.ones(1, 3, 4, 4, device="cpu")
    noisy = scheduler.add_noise(x, x, scheduler.timesteps[:1])
    for t in scheduler.timesteps:
        x = scheduler.step(x, t, x, generator=torch.Generator("cpu").manual_seed(0)).prev_sample
    assert x.device.type == noisy.device.type == "cpu" and bool(torch.isfinite(x).all())


def test_noise_is_added_where_the_timesteps_are(elsewhere):
    pytest.importorskip("diffusers")
    from fewstep.integrations.diffusers import FewStepScheduler

    x = torch.ones(2, 3, 4, 4)
    made = FewStepScheduler().add_noise(x, x, torch.tensor([10, 500]))
    assert made.device.type == x.device.type == "meta"


@pytest.mark.parametrize("cond", [1, [1, 3], None], ids=str)
def test_class_numbers_are_made_on_the_host(cond, elsewhere):
    def network(x, t, labels):
        return labels[:, None].to(x).expand_as(x)

    with torch.device("cpu"):
        model = fs.Denoiser(network, fs.processes.VPLinear(), "x0", num_classes=5, default_cond=4)
        grid = fs.grids.uniform_logsnr(model.process, 3, end="zero")
        x_T = torch.zeros(2, 1)
    found = fs.sample(model, fs.UniPC(2), grid, x_T, cond=cond).flatten().tolist()
    assert found == pytest.approx({"None": [4, 4], "1": [1, 1], "[1, 3]": [1, 3]}[str(cond)], rel=1e-6)


def test_moments_are_the_hosts(elsewhere):
    from fewstep.metrics import frechet_distance, moments_of

    one, other = (torch.randn(20, 3, generator=torch.Generator("cpu").manual_seed(n), device="cpu") for n in (0, 1))
    assert frechet_distance(moments_of(one), moments_of(other)) > 0


def test_skip_factors_are_made_on_the_host(elsewhere):
    pytest.importorskip("diffusers")
    from fewstep import skip, zoo

    with torch.device("cpu"):
        denoiser = zoo.load("fashion-mnist")
    with skip.tuned(denoiser, 0.7, sigma_window=(0.05, 5.0)) as handle:
        factors = handle._scaling.table(torch.tensor([300.0], device="cpu"))
        assert bool((factors < 1).any()) and {f.device.type for f in handle._scaling._factors.values()} == {"cpu"}

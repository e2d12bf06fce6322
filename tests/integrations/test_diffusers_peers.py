"""Diffusers' own schedulers on our models: what they draw is what their own loop, or the same table of ours, draws."""

import diffusers
import pytest
import torch

import fewstep as fs
from fewstep.errors import InputError
from fewstep.executor.noise import seeded_generators
from fewstep.integrations.diffusers.peers import PEERS, Peer
from fewstep.models.model import Model

PROCESS = fs.processes.VPDiscrete.from_betas()
SEEDS = [3, 1, 4, 15]


def gaussian(prediction: str = "x0") -> fs.Denoiser:
    """Data of mean ±0.5 by class and deviation 0.3: D is exact."""

    def network(x, time, labels):
        alpha, sigma = levels_at(time[0])
        mean = (labels - 0.5).view(-1, 1, 1, 1)
        x0 = mean + 0.09 * alpha / (0.09 * alpha**2 + sigma**2) * (x - alpha * mean)
        put_out = {"x0": x0, "epsilon": (x - alpha * x0) / sigma, "v": (alpha * x - x0) / sigma}
        return put_out[prediction].to(x.dtype)

    return fs.Denoiser(network, PROCESS, prediction, shape=(1, 4, 4), num_classes=2)


def levels_at(timestep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    t = (timestep.double() + 1) / 1000
    return PROCESS.alpha(t), PROCESS.sigma(t)


def drawn(name: str, steps: int, seeds=SEEDS, prediction: str = "x0") -> torch.Tensor:
    return Peer(name, steps, PROCESS).draw(Model(gaussian(prediction)), seeds, [seed % 2 for seed in seeds])


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize(("prediction", "type_"), [("epsilon", "epsilon"), ("v", "v_prediction"), ("x0", "sample")])
def test_it_is_diffusers_own_loop(name, prediction, type_):
    """With the network's own prediction, and the schedule by its own name."""
    kind, settings = PEERS[name]
    scheduler = getattr(diffusers, kind)(beta_schedule="linear", prediction_type=type_, **settings)
    scheduler.set_timesteps(6)
    x = torch.stack([torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS])
    noise = seeded_generators(SEEDS, x.device, stream=1)
    labels, calls = torch.tensor([seed % 2 for seed in SEEDS]), 0
    for timestep in scheduler.timesteps:
        output = gaussian(prediction).network(x, timestep.expand(4), labels)
        x = scheduler.step(output, timestep, x, **({"generator": noise} if name == "sa" else {})).prev_sample
        calls += 1
    assert torch.allclose(drawn(name, 6, prediction=prediction), x, atol=1e-4)
    assert calls == Peer(name, 6, PROCESS).nfe


@pytest.mark.parametrize(("name", "solver"), [("unipc", fs.UniPC(2)), ("dpmpp2", fs.DPMSolverPP(2))])
def test_our_table_on_its_grid_gives_its_samples(name, solver):
    levels = torch.tensor(Peer(name, 8, PROCESS).levels, dtype=torch.float64)
    times = torch.where(levels > 0, PROCESS.time(-levels.clamp(min=1e-9).log()), 0.0)
    plan = solver.plan(fs.TimeGrid(PROCESS, times))
    ours = Model(gaussian()).draw(plan, SEEDS, [seed % 2 for seed in SEEDS])
    assert torch.allclose(drawn(name, 8), ours, atol=2e-3)


def test_a_sample_does_not_depend_on_its_batch():
    assert Peer("sa", 6, PROCESS).stochastic and not Peer("deis", 6, PROCESS).stochastic
    assert torch.allclose(drawn("sa", 6)[1:2], drawn("sa", 6, SEEDS[1:2]), atol=1e-6)
    assert not torch.allclose(drawn("sa", 6), drawn("sa", 7), atol=1e-2)


def test_other_processes_and_names_are_refused():
    with pytest.raises(InputError, match="leave --peers out"):
        Peer("unipc", 6, fs.processes.RectifiedFlow())
    with pytest.raises(InputError, match="did you mean 'dpmpp2'"):
        Peer("dpmp2", 6, PROCESS)
    assert len({Peer(name, steps, PROCESS).identity for name in PEERS for steps in (5, 6)}) == 2 * len(PEERS)


@pytest.mark.parametrize("name", [name for name in PEERS if not name.endswith("_karras")])
@pytest.mark.parametrize("steps", [5, 8, 20])
def test_even_time_down_to_zero_has_their_timesteps_but_for_rounding(name, steps):
    timesteps = 1000 * fs.grids.uniform_time(PROCESS, steps, end=0.0).times[:-1] - 1
    kind, settings = PEERS[name]
    theirs = getattr(diffusers, kind)(**settings)
    theirs.set_timesteps(steps)
    assert torch.allclose(timesteps, theirs.timesteps.double(), atol=1.5)

"""The loop as one CUDA graph: the samples of the loop, which runs with a word about it where there can be no graph."""

import gc
import warnings

import pytest
import torch
from support.solvers import SOLVERS
from support.waiting import needs_gpu

import fewstep as fs
from fewstep.errors import InputError
from fewstep.executor import graph
from fewstep.guidance import ClassifierFree

VP = fs.processes.VPDiscrete.from_betas()


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.7), requires_grad=False)
        self.calls, self.wait = 0, False

    def forward(self, x, time, label):
        self.calls += 1
        if self.wait:
            float(x.sum())
        return torch.tanh(self.scale * x + 0.1 * torch.sin(time)[:, None] + 0.1 * label[:, None])


def model(device="cpu"):
    return fs.Denoiser(Network().to(device), VP, "v", shape=(6,), num_classes=4)


GRID = fs.grids.uniform_logsnr(VP, 5)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_without_a_cuda_device_the_samples_are_those_of_the_loop(solver):
    denoiser = model()
    with pytest.warns(
        UserWarning, match="graph=True: a CUDA graph needs a CUDA device, and x_T is on cpu; the steps are"
    ):
        made = fs.sample(denoiser, solver, GRID, seeds=range(3), cond=[0, 1, 2], graph=True)
    assert torch.equal(made, fs.sample(denoiser, solver, GRID, seeds=range(3), cond=[0, 1, 2]))


def test_only_true_and_false_are_taken():
    with pytest.raises(InputError, match="graph is 'yes': write True or False"):
        fs.sample(model(), fs.UniPC(), GRID, seeds=range(3), cond=1, graph="yes")


def test_a_denoiser_is_told_by_its_settings_hooks_and_weights():
    denoiser = model()
    network, before = denoiser.network, graph._identity(denoiser)
    assert graph._identity(denoiser) == before
    with torch.no_grad():
        network.scale.mul_(2)  # in place: the graph reads the new weight
    assert graph._identity(denoiser) == before
    handle = network.register_forward_hook(lambda *given: None)
    assert graph._identity(denoiser) != before
    handle.remove()
    assert graph._identity(denoiser) == before
    network.wait = True
    assert graph._identity(denoiser) != before
    network.wait = False
    network.double()
    assert graph._identity(denoiser) != before
    one, other = (ClassifierFree(denoiser, scale, 3) for scale in (2.0, 3.0))
    assert graph._identity(one) != graph._identity(other)


def test_conditions_are_told_by_their_shapes_and_written_in_place():
    cond = {"label": torch.tensor([1, 2]), "more": {"scale": torch.ones(2, 3)}, "word": "a"}
    other = {"label": torch.tensor([3, 0]), "more": {"scale": torch.zeros(2, 3)}, "word": "a"}
    assert graph._kind(cond) == graph._kind(other)
    assert graph._kind(cond) != graph._kind({**cond, "word": "b"})
    assert graph._kind(cond) != graph._kind({**cond, "label": torch.tensor([1])})
    graph._write(cond, other)
    assert torch.equal(cond["label"], other["label"]) and torch.equal(cond["more"]["scale"], other["more"]["scale"])


def same_as_the_loop(denoiser, plan, **settings):
    """Run with a graph, of which nothing may be said, and without."""
    x_T = torch.randn(3, 6, generator=torch.Generator().manual_seed(1)).cuda()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = fs.execute(plan, denoiser, x_T, graph=True, **settings)
    torch.testing.assert_close(made, fs.execute(plan, denoiser, x_T, **settings), rtol=1e-5, atol=1e-5)
    return made


@needs_gpu
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_graph_gives_the_samples_of_the_loop(solver):
    denoiser, plan = model("cuda"), solver.plan(GRID)
    same_as_the_loop(denoiser, plan, seeds=range(3), cond=[0, 1, 2])
    calls = denoiser.network.calls
    for seeds, cond in ((range(3), [3, 2, 1]), ([9, 8, 7], [0, 0, 0])):  # replays, of new noise and conditions
        x_T = torch.randn(3, 6, generator=torch.Generator().manual_seed(seeds[0])).cuda()
        made = fs.execute(plan, denoiser, x_T, seeds=seeds, cond=cond, graph=True)
        assert denoiser.network.calls == calls
        denoiser.network.calls = calls = 0
        torch.testing.assert_close(made, fs.execute(plan, denoiser, x_T, seeds=seeds, cond=cond), rtol=1e-5, atol=1e-5)
        denoiser.network.calls = calls


@needs_gpu
def test_a_graph_reads_new_weights_and_other_shapes_have_graphs_of_their_own():
    denoiser, plan = model("cuda"), fs.SASolver(3, 3, tau=1.0).plan(GRID)
    first = same_as_the_loop(denoiser, plan, seeds=range(3), cond=1)
    denoiser.network.scale.mul_(0.5)
    assert not torch.allclose(same_as_the_loop(denoiser, plan, seeds=range(3), cond=1), first)
    x_T = torch.randn(7, 6, generator=torch.Generator().manual_seed(1)).cuda()
    made = fs.execute(plan, denoiser, x_T, seeds=range(7), cond=1, graph=True)
    torch.testing.assert_close(made, fs.execute(plan, denoiser, x_T, seeds=range(7), cond=1), rtol=1e-5, atol=1e-5)


@needs_gpu
def test_noise_of_generators_and_samplers_is_drawn_before_the_replay():
    denoiser, plan = model("cuda"), fs.SASolver(3, 3, tau=1.0).plan(GRID)
    x_T = torch.ones(3, 6, device="cuda")
    made = [
        fs.execute(plan, denoiser, x_T, generator=torch.Generator("cuda").manual_seed(5), cond=1, graph=wanted)
        for wanted in (True, False)
    ]
    torch.testing.assert_close(*made, rtol=1e-5, atol=1e-5)
    same_as_the_loop(denoiser, plan, noise_sampler=lambda sigma, after: sigma.float() * torch.ones_like(x_T), cond=1)


@needs_gpu
def test_a_state_that_stopped_being_finite_leaves_nothing_behind():
    denoiser, plan = model("cuda"), fs.UniPC(3).plan(GRID)
    good = same_as_the_loop(denoiser, plan, cond=1)
    with pytest.raises(fs.errors.NonFiniteStateError, match="after step 0"):
        fs.execute(plan, denoiser, torch.full((3, 6), torch.nan, device="cuda"), cond=1, graph=True)
    assert torch.equal(same_as_the_loop(denoiser, plan, cond=1), good)


@needs_gpu
def test_a_network_that_waits_runs_without_a_graph_and_says_so():
    denoiser, plan = model("cuda"), fs.UniPC(3).plan(GRID)
    denoiser.network.wait = True
    x_T = torch.ones(3, 6, device="cuda")
    for _ in range(2):
        with pytest.warns(UserWarning, match="graph=True: the network cannot be captured .*one by one"):
            made = fs.execute(plan, denoiser, x_T, cond=1, graph=True)
        assert torch.equal(made, fs.execute(plan, denoiser, x_T, cond=1))
    with pytest.warns(UserWarning, match="a callback or correct_x_t has to be called"):
        fs.execute(plan, denoiser, x_T, cond=1, graph=True, callback=lambda *given: None)


@needs_gpu
def test_graphs_go_with_their_denoiser():
    denoiser = model("cuda")
    same_as_the_loop(denoiser, fs.UniPC(3).plan(GRID), cond=1)
    before = len(graph._kept)
    del denoiser
    gc.collect()
    assert len(graph._kept) == before - 1

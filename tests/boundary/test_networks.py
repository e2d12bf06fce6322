"""Networks that are not kind: each gives the right samples, or a sentence, and never others without a word."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep.errors import InputError

PROCESS = fs.processes.VPDiscrete.from_betas()
GRID = fs.grids.karras(PROCESS, 4, end="zero")
X_T = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def kind(x, t):
    return 0.3 * x


def clamps(x, t):
    return 0.3 * x.mul_(1.0).clamp_(-1.0, 1.0)


class Inplace(nn.Module):
    """``nn.SiLU(inplace=True)`` first."""

    def __init__(self, inplace):
        super().__init__()
        self.inplace = inplace

    def forward(self, x, t, cond=None):
        return 0.5 * nn.functional.silu(x, inplace=self.inplace)


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v", "flow", "edm"])
@pytest.mark.parametrize("solver", [fs.UniPC(2), fs.DEIS(2), fs.SASolver(2, 2, tau=0.5), fs.Heun()], ids=repr)
def test_a_network_that_writes_into_its_input(prediction, solver):
    def made(inplace):
        return fs.sample(fs.Denoiser(Inplace(inplace), PROCESS, prediction), solver, GRID, X_T, seeds=range(4))

    torch.testing.assert_close(made(True), made(False), rtol=0, atol=0)


def test_a_callable_that_writes_into_its_input():
    def writes(x, t):
        return x.mul_(0.3)

    torch.testing.assert_close(fs.sample(writes, fs.DEIS(2), GRID, X_T), fs.sample(kind, fs.DEIS(2), GRID, X_T))


def test_a_network_that_writes_is_calibrated_as_one_that_does_not():
    def made(inplace):
        model = fs.Denoiser(Inplace(inplace), PROCESS, "epsilon", shape=(3, 8, 8))
        return fs.calibrate(model, fs.UniPC(2), GRID, num=8, reference_steps=10, objective="local").plan

    assert torch.equal(made(True).history_weights, made(False).history_weights)


def test_a_network_that_writes_in_a_pipeline():
    pytest.importorskip("diffusers")
    from fewstep.integrations.diffusers import FewStepScheduler

    scheduler = FewStepScheduler()
    scheduler.set_timesteps(4)
    given = X_T.clone()
    scheduler.scale_model_input(given, scheduler.timesteps[0]).zero_()
    assert torch.equal(given, X_T)


OUTPUTS = {
    "one column": lambda x: x[..., :1],
    "one row": lambda x: x[:1],
    "one channel": lambda x: x[:, :1],
    "a scalar": lambda x: x.mean(),
    "one axis more": lambda x: x[None],
    "twice the batch": lambda x: torch.cat([x, x]),
    "None": lambda x: None,
    "a dict": lambda x: {"out": x},
    "numpy": lambda x: x.numpy(),
    "a string": lambda x: "x",
    "an empty tuple": lambda x: (),
    "an empty list": lambda x: [],
    "an object": lambda x: object(),
    "complex": lambda x: torch.complex(x, x),
    "bool": lambda x: x > 0,
    "a nested tuple": lambda x: ((x,),),
    "a number": lambda x: 1.0,
}


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("wrapped", [True, False])
def test_an_output_of_another_shape_or_kind_is_refused(output, wrapped):
    def network(x, t):
        return OUTPUTS[output](x)

    model = fs.Denoiser(network, PROCESS, "x0", shape=(3, 8, 8)) if wrapped else network
    with pytest.raises(InputError, match="returned"):
        fs.sample(model, fs.UniPC(2), GRID, X_T)
    with pytest.raises(InputError, match="returned"):
        fs.calibrate(model, fs.UniPC(2), GRID, X_T.repeat(2, 1, 1, 1), num=8, reference_steps=8)


def test_outputs_that_are_unwrapped():
    Output = collections.namedtuple("Output", "sample")
    expected = fs.sample(fs.Denoiser(kind, PROCESS, "x0"), fs.UniPC(2), GRID, X_T)
    for network in (lambda x, t: Output(0.3 * x), lambda x, t: (0.3 * x, None), lambda x, t: [0.3 * x]):
        made = fs.sample(fs.Denoiser(network, PROCESS, "x0"), fs.UniPC(2), GRID, X_T)
        torch.testing.assert_close(made, expected, rtol=0, atol=0)


def test_a_learned_variance_is_named_and_cut_off():
    def network(x, t):
        return torch.cat([0.3 * x, torch.ones_like(x)], dim=1)

    with pytest.raises(InputError, match=r"write fs.Denoiser\(…, learned_variance=True\)"):
        fs.sample(fs.Denoiser(network, PROCESS), fs.UniPC(2), GRID, X_T)
    made = fs.sample(fs.Denoiser(network, PROCESS, learned_variance=True), fs.UniPC(2), GRID, X_T)
    expected = fs.sample(fs.Denoiser(kind, PROCESS), fs.UniPC(2), GRID, X_T)
    torch.testing.assert_close(made, expected, rtol=0, atol=0)


class LooksUp(nn.Module):
    """A network that looks its time up."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(1000, 1)
        self.seen = []

    def forward(self, x, t):
        self.seen.append(t)
        return torch.tanh(x) + self.table(t)[..., None, None]


@pytest.mark.parametrize("guided", [False, True])
def test_integer_times_move_grid_and_sigma(guided):
    network = LooksUp()
    model = fs.Denoiser(network, PROCESS, integer_times=True, shape=(3, 8, 8))
    if guided:
        model = fs.guidance.StaticThreshold(model, 5.0)
    made = fs.sample(model, fs.UniPC(2), GRID, seeds=range(4))
    steps = torch.stack([t[0] for t in network.seen])
    assert steps.dtype == torch.long and len(set(steps.tolist())) == 4
    moved = GRID.on_training_steps()
    torch.testing.assert_close(moved.times[:-1] * 1000 - 1, steps.double(), rtol=0, atol=1e-9)
    assert moved.times[-1] == 0.0
    # The table of coefficients is of the levels that the network was told, and x_T of the first of them.
    x_T = fs.initial_state(moved, (3, 8, 8), range(4))
    torch.testing.assert_close(fs.execute(fs.UniPC(2).plan(moved), model, x_T), made, rtol=0, atol=0)
    with pytest.raises(InputError, match="looks its time up"):
        fs.execute(fs.UniPC(2).plan(GRID), model, x_T)


def test_integer_times_need_training_steps_of_their_own():
    with pytest.raises(InputError, match="training steps"):
        fs.Denoiser(kind, fs.processes.VPLinear(), integer_times=True)
    with pytest.raises(InputError, match="two times of the grid lie on one"):
        fs.grids.uniform_logsnr(PROCESS, 900, end="zero").on_training_steps()
    with pytest.raises(InputError, match="has no training steps"):
        fs.grids.karras(fs.processes.EDM(), 4).on_training_steps()


@pytest.mark.parametrize("cond", ["7", [7, "x"], [[1], [2, 3]], 10**30, [10**30] * 4, object(), [1.5] * 4, [True] * 4, 10, [-1] * 4, [0, 1]])  # fmt: skip  # noqa: E501
def test_classes_are_checked_where_a_denoiser_is_called_directly(cond):
    model = fs.Denoiser(lambda x, t, c: x * c.view(-1, 1, 1, 1), PROCESS, num_classes=10)
    with pytest.raises(InputError):
        model(X_T, torch.tensor(0.5), cond)
    with pytest.raises(InputError):
        fs.sample(model, fs.UniPC(2), GRID, X_T, cond=cond)


def test_a_list_of_classes_is_as_good_as_a_tensor():
    model = fs.Denoiser(lambda x, t, c: x * c.view(-1, 1, 1, 1), PROCESS, "x0", num_classes=10)
    expected = model(X_T, torch.tensor(0.5), torch.tensor([1, 2, 3, 4]))
    for cond in ([1, 2, 3, 4], (1, 2, 3, 4), np.array([1, 2, 3, 4])):
        torch.testing.assert_close(model(X_T, torch.tensor(0.5), cond), expected, rtol=0, atol=0)


@pytest.mark.parametrize("null", [-1, 11, 1.5, "none", [1, 2], True])
def test_a_null_class_out_of_range_is_refused(null):
    with pytest.raises(InputError, match="null_cond is"):
        fs.guidance.ClassifierFree(fs.Denoiser(kind, PROCESS, num_classes=10), 2.0, null)


@pytest.mark.parametrize("scale", [None, "2", float("nan"), float("inf"), [1.0, 2.0], torch.ones(4, 1), 10**400, True])
def test_a_guidance_scale_is_one_number(scale):
    with pytest.raises(InputError, match="guidance_scale is"):
        fs.guidance.ClassifierFree(fs.Denoiser(kind, PROCESS, num_classes=10), scale, 10)


def test_a_guidance_scale_may_be_of_numpy_or_a_tensor():
    for scale in (np.float32(2.0), torch.tensor(2.0), 2, np.int64(2)):
        assert fs.guidance.ClassifierFree(fs.Denoiser(kind, PROCESS), scale, None).guidance_scale == 2.0

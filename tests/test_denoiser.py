"""Every prediction gives the same D for the same model; conditions, dtypes and outputs are handled at the edge."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep.errors import InputError

PROCESSES = [fs.processes.VPCosine(), fs.processes.EDM(), fs.processes.RectifiedFlow(shift=3.0)]
each_process = pytest.mark.parametrize("process", PROCESSES, ids=repr)


def target(x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x)


@each_process
@pytest.mark.parametrize("prediction", ["epsilon", "v", "flow", "x0"])
def test_all_predictions_of_one_model_agree(process, prediction):
    t = torch.tensor(0.37, dtype=torch.float64)
    alpha, sigma = process.alpha(t), process.sigma(t)
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x_0 = target(x)
    noise = (x - alpha * x_0) / sigma
    outputs = {"epsilon": noise, "v": alpha * noise - sigma * x_0, "flow": noise - x_0, "x0": x_0}
    denoiser = fs.Denoiser(lambda x, t: outputs[prediction], process, prediction)
    assert torch.allclose(denoiser(x, t), x_0, atol=1e-12)


@each_process
def test_edm_preconditioning_inverts_its_own_training_target(process):
    t = torch.tensor(0.37, dtype=torch.float64)
    alpha, sigma = process.alpha(t), process.sigma(t)
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scaled, level, data = x / alpha, sigma / alpha, 0.5
    c_skip = data**2 / (level**2 + data**2)
    c_out = level * data / (level**2 + data**2).sqrt()
    c_in = 1 / (level**2 + data**2).sqrt()

    def network(inputs, c_noise):
        assert torch.allclose(inputs, c_in * scaled)
        assert torch.allclose(c_noise, (level.log() / 4).expand(4))
        return (target(x) - c_skip * scaled) / c_out

    assert torch.allclose(fs.Denoiser(network, process, "edm")(x, t), target(x), atol=1e-12)


def test_it_knows_where_its_network_computes():
    flow = fs.processes.RectifiedFlow()
    constants = torch.nn.Module()
    constants.register_buffer("mean", torch.zeros(1, device="meta"))
    for network, place in ((constants, "meta"), (torch.nn.Linear(2, 2), "cpu"), (abs, "cpu")):
        assert fs.Denoiser(network, flow, "flow").device == torch.device(place)


def test_the_network_is_fed_its_own_time():
    seen = []

    def network(x, time):
        seen.append(time)
        return x

    t, x = torch.tensor(0.5, dtype=torch.float64), torch.zeros(3, 2)
    fs.Denoiser(network, fs.processes.VPDiscrete.from_betas(), "x0")(x, t)
    fs.Denoiser(network, fs.processes.RectifiedFlow(), "x0", network_time=lambda t: 1000 * t)(x, t)
    fs.Denoiser(network, fs.processes.EDM(), "x0")(x, t)
    assert [time.tolist() for time in seen] == [[499.0] * 3, [500.0] * 3, [0.5] * 3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_network_keeps_a_wide_state(dtype):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x, t):
            assert x.dtype == dtype
            return self.layer(x)

    process = fs.processes.VPLinear()
    denoiser = fs.Denoiser(Network().to(dtype), process, "epsilon", shape=(2,))
    out = fs.sample(denoiser, fs.UniPC(), fs.grids.uniform_logsnr(process, 4), seeds=range(3))
    assert out.dtype == torch.float32 and bool(torch.isfinite(out).all())


@pytest.mark.parametrize("wrap", [lambda y: y, lambda y: (y, None), lambda y: SimpleNamespace(sample=y)])
def test_outputs_are_unwrapped(wrap):
    denoiser = fs.Denoiser(lambda x, t: wrap(2 * x), fs.processes.VPLinear(), "x0")
    assert torch.equal(denoiser(torch.ones(1, 2), torch.tensor(0.5)), 2 * torch.ones(1, 2))


def test_conditions_are_handed_on_by_position_or_by_name():
    def network(x, t, labels=None, *, scale=1.0):
        return x * 0 + scale * (0 if labels is None else labels.view(-1, 1))

    denoiser = fs.Denoiser(network, fs.processes.VPLinear(), "x0", num_classes=5, default_cond=4)
    x, t = torch.zeros(2, 1), torch.tensor(0.5)
    assert denoiser(x, t, torch.tensor([1, 2])).flatten().tolist() == [1, 2]
    assert denoiser(x, t).flatten().tolist() == [4, 4]
    assert denoiser(x, t, {"labels": torch.tensor([1, 2]), "scale": 10.0}).flatten().tolist() == [10, 20]


@pytest.mark.parametrize(
    ("cond", "words"),
    [
        (5, "class 5 is out of range"),
        ([0, -1], "class -1"),
        ([1, 2, 3], "2, one for each"),
        ([0.5, 1.0], "class number"),
    ],
)
def test_wrong_classes_are_refused(cond, words):
    denoiser = fs.Denoiser(lambda x, t, y: x, fs.processes.VPLinear(), "x0", num_classes=5, shape=(2,))
    grid = fs.grids.uniform_logsnr(fs.processes.VPLinear(), 2)
    with pytest.raises(InputError, match=words):
        fs.sample(denoiser, fs.UniPC(), grid, seeds=range(2), cond=cond)


def test_unknown_settings_are_refused():
    with pytest.raises(InputError, match="did you mean 'epsilon'"):
        fs.Denoiser(lambda x, t: x, fs.processes.VPLinear(), "epsilonn")
    with pytest.raises(InputError, match="did you mean 'v'"):
        fs.Denoiser(lambda x, t: x, fs.processes.VPLinear(), "v_prediction")
    with pytest.raises(InputError, match="VPLinear"):
        fs.Denoiser(lambda x, t: x, "vp")

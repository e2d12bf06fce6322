"""The layers of a wrapped network, from the outside in."""

import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep.unwrap import innermost_denoiser, is_compiled, layers, network_of


def wrapped(network):
    denoiser = fs.Denoiser(network, fs.processes.VPLinear())
    return denoiser, fs.guidance.StaticThreshold(fs.guidance.ClassifierFree(denoiser, 2.0, 0))


@pytest.mark.parametrize(
    "around", [lambda net: net, nn.DataParallel, torch.compile], ids=["bare", "parallel", "compiled"]
)
def test_from_guidance_to_the_network(around):
    network = nn.Linear(2, 2)
    denoiser, outer = wrapped(around(network))
    names = [type(layer).__name__ for layer in layers(outer)]
    assert names[:3] == ["StaticThreshold", "ClassifierFree", "Denoiser"] and names[-1] == "Linear"
    assert innermost_denoiser(outer) is innermost_denoiser(denoiser) is denoiser
    assert network_of(outer) is network_of(around(network)) is network_of(network) is network
    assert is_compiled(outer) is (around is torch.compile)


def test_a_compiled_part_is_found():
    network = nn.Sequential(nn.Linear(2, 2), torch.compile(nn.Linear(2, 2)))
    assert network_of(network) is network and is_compiled(network)


def test_what_is_no_network_is_its_own_only_layer():
    def denoiser(x, t):
        return x

    for thing in (denoiser, None, "unet", nn.Identity()):
        assert network_of(thing) is innermost_denoiser(thing) is thing and not is_compiled(thing)
    assert list(layers(wrapped(denoiser)[0]))[-1] is denoiser


def test_a_module_with_an_attribute_of_a_wrappers_name_is_no_wrapper():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.network, self.module = (nn.Linear(1, 1) for _ in range(3))

    network = Network()
    assert network_of(wrapped(network)[1]) is network

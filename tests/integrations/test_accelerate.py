"""Where an offloaded network computes."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import fewstep as fs

FLOW = fs.processes.RectifiedFlow()


@pytest.mark.parametrize("hook", [{"execution_device": "meta"}, {"hooks": [{}, {"execution_device": "meta"}]}])
def test_one_hook_or_several_in_a_row(hook):
    """Also where the hook is on a part of the network, and where a wrapper is around it."""
    hooks = [SimpleNamespace(**one) for one in hook.pop("hooks", [])]
    network = torch.nn.Sequential(torch.nn.Linear(2, 2))
    network[0]._hf_hook = SimpleNamespace(**hook, hooks=hooks)
    for outer in (network, network[0], torch.nn.DataParallel(network), torch.compile(network)):
        assert fs.Denoiser(outer, FLOW, "flow").device == torch.device("meta")


def test_it_is_where_accelerate_brings_the_network():
    accelerate = pytest.importorskip("accelerate")
    for network in (torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.Linear(2, 2))):
        offloaded = accelerate.cpu_offload(network, execution_device=torch.device("cpu"))
        assert {part.device.type for part in network.parameters()} == {"meta"}
        assert fs.Denoiser(offloaded, fs.processes.EDM(), "x0").device == torch.device("cpu")


@pytest.mark.parametrize("name", ["Denoiser", "skip"])
def test_any_name_of_the_package_brings_it(name):
    """A process that has used nothing of the integrations by itself knows it too."""
    program = (
        f"import fewstep as fs, torch, types; fs.{name}; network = torch.nn.Linear(2, 2)\n"
        "network._hf_hook = types.SimpleNamespace(execution_device='meta')\n"
        "from fewstep.denoiser import network_device; print(network_device(network, None))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "meta"

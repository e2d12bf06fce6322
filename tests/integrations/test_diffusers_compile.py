"""A compiled step is compiled once, and computes the same."""

from __future__ import annotations

import pytest
import torch
from support.scheduler_models import FLOW, noise
from support.waiting import each_device, needs_gpu, without_waiting

from fewstep.integrations.diffusers import FewStepScheduler

SETTINGS = {
    "unipc": {"solver_order": 3},
    "sa": {"solver": "sa", "tau": 1.0, "tau_window": [0.1, 4.0]},
    "deis": {"solver": "deis"},
    "flow": FLOW,
    "thresholding": {"thresholding": True},
}


def run(scheduler, step, dtype, seen):
    scheduler.set_timesteps(6)
    x = noise(2, 4, 8, 8, dtype=dtype)
    for i, t in enumerate(scheduler.timesteps):
        x = step(noise(2, 4, 8, 8, seed=i, dtype=dtype), t, x, return_dict=False)[0]
        seen.append(len(seen_graphs))
    return x


seen_graphs: list = []


def backend(module, inputs):
    seen_graphs.append(module)
    return module.forward


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_nothing_is_compiled_after_the_first_step(settings, dtype):
    plain = FewStepScheduler(**settings)
    expected = run(plain, plain.step, dtype, [])
    torch.compiler.reset()
    seen_graphs.clear()
    scheduler, seen = FewStepScheduler(**settings), []
    step = torch.compile(scheduler.step, backend=backend)
    got = run(scheduler, step, dtype, seen)
    assert seen == [seen[0]] * 6 and seen[0] <= 1
    run(scheduler, step, dtype, seen)
    assert seen == [seen[0]] * 12
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    torch.compiler.reset()


def test_views_of_one_buffer_survive_functionalization():
    plain, scheduler = FewStepScheduler(solver_order=3), FewStepScheduler(solver_order=3)
    torch.compiler.reset()
    step = torch.compile(scheduler.step, backend="aot_eager")
    got, expected = run(scheduler, step, torch.bfloat16, []), run(plain, plain.step, torch.bfloat16, [])
    torch.testing.assert_close(got, expected)
    torch.compiler.reset()


@each_device
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_waits_or_crosses_after_the_first_step(settings, dtype, device):
    """On the meta device no value exists: whatever reads one fails. On the CPU the operations are listed."""
    scheduler = FewStepScheduler(**settings)
    scheduler.set_timesteps(5, device=device)
    x = noise(2, 4, 8, 8, dtype=dtype).to(device)
    x = scheduler.step(x, scheduler.timesteps[0], x).prev_sample
    for t in scheduler.timesteps[1:]:
        with without_waiting(x.device):
            x = scheduler.step(x, t, x).prev_sample
    if settings is not SETTINGS["sa"]:
        scheduler.set_timesteps(5, device="meta")
        scheduler.set_begin_index(0)
        x = torch.empty(2, 4, 8, 8, device="meta", dtype=dtype)
        for t in scheduler.timesteps:
            x = scheduler.step(x, t, x).prev_sample
        assert x.device.type == "meta"


def test_noise_is_added_in_one_graph():
    """As in a training step that is compiled."""
    scheduler, x = FewStepScheduler(), noise(2, 4, 8, 8)
    torch.compiler.reset()
    add_noise = torch.compile(scheduler.add_noise, backend="eager", fullgraph=True)
    timesteps = torch.tensor([10, 700])
    torch.testing.assert_close(add_noise(x, x, timesteps), scheduler.add_noise(x, x, timesteps))
    torch.compiler.reset()


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_state_is_float32_under_autocast(dtype):
    """A GPU's autocast would take the product of a step for one that half precision is good enough for."""
    plain, scheduler = FewStepScheduler(solver_order=3), FewStepScheduler(solver_order=3)
    for one in (plain, scheduler):
        one.set_timesteps(5, device="cuda")
    x = y = noise(2, 4, 8, 8, dtype=dtype).cuda()
    for t in plain.timesteps:
        x = plain.step(x, t, x).prev_sample
        with torch.autocast("cuda"):
            y = scheduler.step(y, t, y).prev_sample
    torch.testing.assert_close(x, y, rtol=0, atol=0)

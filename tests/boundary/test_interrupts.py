"""An interrupt in the middle of a call: hooks are gone, and pipeline and scheduler are as good as new."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support import tiny_pipelines as tiny
from support.generating import counted_unet
from torch import nn

import fewstep as fs
from fewstep.integrations.diffusers import FewStepScheduler

X, TIME = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, 0.1])
SETTINGS = [{"rho": 0.7}, {"rho": 0.7, "sigma_window": (0.01, 10.0), "process": fs.processes.EDM()}]


@pytest.fixture
def network():
    return counted_unet().network.requires_grad_(False)


class Interrupted:
    """A hook that stops everything at its ``at``-th call."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def state(network: nn.Module) -> list[object]:
    """All that hooks leave behind."""
    return [
        (name, len(part._forward_pre_hooks), len(part._forward_hooks), sorted(key for key in vars(part)))
        for name, part in network.named_modules()
    ]


def middle(network: nn.Module) -> nn.Module:
    return network.up_blocks[0].resnets[1]


@pytest.mark.parametrize("settings", SETTINGS, ids=["constant", "by noise level"])
@pytest.mark.parametrize("with_block", [True, False])
def test_hooks_are_gone(network, settings, with_block):
    before, expected = state(network), network(X, TIME).sample
    stop = middle(network).register_forward_pre_hook(Interrupted(1))
    with pytest.raises(KeyboardInterrupt):
        if with_block:
            with fs.skip.tuned(network, **settings):
                network(X, TIME)
        else:
            handle = fs.skip.tuned(network, **settings)
            network(X, TIME)
    stop.remove()
    if not with_block:
        assert not torch.equal(network(X, TIME).sample, expected)
        handle.remove()
    assert state(network) == before and torch.equal(network(X, TIME).sample, expected)


@pytest.fixture
def interrupted_registration(monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Interrupt the second registration of a hook; return whether it came to that."""
    register, count = nn.Module.register_forward_pre_hook, [0]

    def registered(module: nn.Module, *given: object, **more: object) -> object:
        count[0] += 1
        if count[0] == 2:
            raise KeyboardInterrupt
        return register(module, *given, **more)

    monkeypatch.setattr(nn.Module, "register_forward_pre_hook", registered)
    return lambda: count[0] == 2


@pytest.mark.parametrize("settings", SETTINGS, ids=["constant", "by noise level"])
def test_none_stays_of_a_handle_that_was_never_returned(network, settings, interrupted_registration):
    before = state(network)
    with pytest.raises(KeyboardInterrupt):
        fs.skip.tuned(network, **settings)
    assert interrupted_registration() and state(network) == before


@pytest.mark.parametrize("settings", [{"solver": "unipc"}, {"solver": "sa", "skip": 0.8}])
def test_a_pipeline_that_was_interrupted_gives_what_a_fresh_one_does(settings):
    pipe, call = tiny.stable_diffusion()
    original = pipe.scheduler
    bare = state(pipe.unet)
    fs.enable(pipe, 4, grid="karras", **settings)
    expected, before = tiny.run(pipe, call, steps=4), state(pipe.unet)
    for at in (1, 2, 4):
        stop = middle(pipe.unet).register_forward_pre_hook(Interrupted(at))
        with pytest.raises(KeyboardInterrupt):
            tiny.run(pipe, call, steps=4)
        stop.remove()
        assert torch.equal(tiny.run(pipe, call, steps=4), expected)
    assert state(pipe.unet) == before
    fs.disable(pipe)
    assert pipe.scheduler is original and state(pipe.unet) == bare


def test_enable_that_is_interrupted_leaves_the_pipeline_as_it_was(interrupted_registration):
    pipe, _ = tiny.stable_diffusion()
    before, scheduler, kind = state(pipe.unet), pipe.scheduler, type(pipe)
    with pytest.raises(KeyboardInterrupt):
        fs.enable(pipe, 4, skip=0.8)
    assert interrupted_registration()
    assert state(pipe.unet) == before and pipe.scheduler is scheduler and type(pipe) is kind


@pytest.mark.parametrize("solver", ["unipc", "sa", "dpmpp"])
def test_a_scheduler_is_usable_after_half_a_run(solver):
    def run(scheduler: FewStepScheduler, stop: int = 9) -> torch.Tensor:
        scheduler.set_timesteps(5)
        x = X
        for number, t in enumerate(scheduler.timesteps):
            if number == stop:
                raise KeyboardInterrupt
            x = scheduler.step(0.3 * scheduler.scale_model_input(x, t).tanh(), t, x).prev_sample
        return x

    scheduler = FewStepScheduler(solver=solver, seed=3)
    expected = run(FewStepScheduler(solver=solver, seed=3))
    for stop in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            run(scheduler, stop)
        assert torch.equal(run(scheduler), expected)

"""Pipelines of other kinds under ``fs.enable``: modular ones, ones that are pickled, ones that cannot be enabled."""

from __future__ import annotations

import io
import pickle

import diffusers
import numpy as np
import pytest
import torch
from packaging.version import Version
from support import tiny_pipelines as tiny

import fewstep as fs
from fewstep.errors import InputError
from fewstep.integrations.diffusers.known_pipelines import TIED, WHOLE_INDICES


def saved_by_torch(pipe):
    file = io.BytesIO()
    torch.save(pipe, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("settings", [{}, {"skip": 0.8}], ids=str)
@pytest.mark.parametrize("through", [lambda pipe: pickle.loads(pickle.dumps(pipe)), saved_by_torch])
def test_an_enabled_pipeline_is_pickled(through, settings):
    pipe, call = tiny.stable_diffusion()
    original = type(pipe.scheduler)
    expected = tiny.run(fs.enable(pipe, steps=3, **settings), call, steps=3)
    again = through(pipe)
    assert torch.equal(tiny.run(again, call, steps=3), expected) and fs.summary(again).steps == 3
    assert type(fs.disable(again)) is diffusers.StableDiffusionPipeline and type(again.scheduler) is original


@pytest.mark.skipif(
    Version(diffusers.__version__) < Version("0.36"), reason="modular pipelines come with diffusers 0.36"
)
def test_a_modular_pipeline_is_enabled_like_others():
    from diffusers.modular_pipelines import FluxAutoBlocks

    plain, call = tiny.flux()
    blocks = FluxAutoBlocks()
    blocks.sub_blocks.pop("text_encoder")
    pipe = blocks.init_pipeline()
    parts = plain.components.items()
    pipe.update_components(**{name: part for name, part in parts if name in pipe.component_names and part is not None})
    fs.enable(pipe, steps=3)
    made = pipe(**call, generator=torch.Generator().manual_seed(0), output_type="np", output="images")
    assert fs.summary(pipe).calls == {"transformer": 3}
    np.testing.assert_allclose(made, tiny.run(fs.enable(plain), call, steps=3).numpy(), atol=1e-6)
    assert type(fs.disable(pipe).scheduler) is diffusers.FlowMatchEulerDiscreteScheduler


@pytest.mark.parametrize("name", sorted(TIED))
def test_a_pipeline_that_computes_around_its_scheduler_is_refused_at_once(name):
    kind = getattr(diffusers, name, None)
    if kind is None:
        pytest.skip(f"this diffusers has no {name}")
    pipe = kind.__new__(kind)
    vars(pipe)["scheduler"] = diffusers.EulerDiscreteScheduler()
    with pytest.raises(InputError, match=f"{name} .*: keep its scheduler"):
        fs.enable(pipe, steps=4)
    assert type(pipe) is kind and type(pipe.scheduler) is diffusers.EulerDiscreteScheduler


@pytest.mark.parametrize("name", WHOLE_INDICES)
def test_pipelines_that_look_a_table_up_are_given_whole_numbers(name):
    kind = getattr(diffusers, name)
    pipe = kind.__new__(kind)
    pipe.register_modules(scheduler=diffusers.DDIMScheduler())
    fs.enable(pipe, steps=4)
    pipe.scheduler.set_timesteps(4)
    assert pipe.scheduler.timesteps.dtype == torch.int64


def test_a_pair_of_lists_is_not_dropped():
    """GLM-Image passes timesteps and sigmas together: with a grid of a name they run, with a warning, at any number."""
    for num in (4, 5, 7, 10):
        settings = {"prediction_type": "flow_prediction", "flow_shift": 3.0}
        scheduler = fs.integrations.diffusers.FewStepScheduler(**settings, grid="karras")
        timesteps = np.linspace(1000, 1.0, num + 1)[:-1].astype(np.int64).astype(np.float32)
        with pytest.warns(UserWarning, match="sigmas are given"):
            scheduler.set_timesteps(timesteps=timesteps, sigmas=timesteps / 1000)
        plain = fs.integrations.diffusers.FewStepScheduler(**settings)
        plain.set_timesteps(timesteps=timesteps, sigmas=timesteps / 1000)
        assert torch.equal(scheduler.sigmas, plain.sigmas) and torch.equal(scheduler.timesteps, plain.timesteps)


def test_two_threads_are_named_where_they_meet():
    pipe, _ = tiny.stable_diffusion()
    scheduler = fs.enable(pipe, steps=2).scheduler
    scheduler.set_timesteps(2)
    x = torch.zeros(1, 4, 8, 8)
    for t in scheduler.timesteps:
        scheduler.step(x, t, x)
    with pytest.raises(InputError, match="two threads need a pipeline each"):
        scheduler.step(x, scheduler.timesteps[0], x)

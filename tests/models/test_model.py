"""A model and its guidance."""

import pytest
import torch

import fewstep as fs
from fewstep.errors import InputError
from fewstep.guidance import ClassifierFree
from fewstep.models.model import Model


def conditional(x, t, label):
    return x * label.view(-1, 1)


def test_guidance_is_put_around_the_denoiser():
    denoiser = fs.Denoiser(conditional, fs.processes.EDM(), "x0", shape=(3,), num_classes=4, default_cond=0)
    model = Model(denoiser, null_cond=0)
    assert model.guided(1.0) is model and model.denoiser is denoiser
    guided = model.guided(2.5)
    assert isinstance(guided.denoiser, ClassifierFree) and guided.denoiser.inner is denoiser
    x, t, label = torch.ones(2, 3), torch.tensor(1.0), torch.tensor([1, 3])
    assert torch.equal(guided.denoiser(x, t, label), 2.5 * denoiser(x, t, label))
    for scale, words in ((float("nan"), "guidance_scale"), (2.0, "no known null condition")):
        with pytest.raises(InputError, match=words):
            (Model(denoiser) if scale == scale else model).guided(scale)

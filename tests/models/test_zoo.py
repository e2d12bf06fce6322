"""The embedded model: it loads offline, is small, and has learned its classes."""

from importlib import resources

import pytest
import torch

import fewstep as fs
from fewstep.errors import InputError


def test_the_weights_are_half_precision_and_at_most_eight_megabytes():
    from safetensors import safe_open

    path = resources.files("fewstep.models") / "fashion_mnist" / "diffusion_pytorch_model.safetensors"
    with resources.as_file(path) as file:
        assert file.stat().st_size <= 8 * 2**20
        with safe_open(file, "pt") as weights:
            assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.float16}


def test_classes_look_different_and_guidance_sharpens_them():
    model = fs.zoo.load("fashion-mnist")
    grid = fs.grids.karras(model.process, 6)
    images = fs.sample(model, fs.UniPC(), grid, seeds=[0, 0, 0], cond=[1, 8, 9])
    assert images.shape == (3, 1, 32, 32)
    corners = images[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    assert float((corners + 1.0).abs().mean()) < 0.2  # the background is black: no drift in brightness
    trouser, bag, boot = images[:, 0]
    assert float((trouser[:, :8] > 0).float().mean()) < 0.05  # trousers are narrow
    assert float((bag > -0.5).float().mean()) > float((trouser > -0.5).float().mean())
    guided = fs.zoo.load("fashion-mnist", guidance_scale=3.0)
    assert not torch.allclose(fs.sample(guided, fs.UniPC(), grid, seeds=[0, 0, 0], cond=[1, 8, 9]), images)


def test_the_denoising_error_is_that_of_a_trained_network(shared):
    """On held-out images the v-prediction's error is far below that of the best constant."""
    import numpy as np

    with np.load(shared / "data" / "fashion_mnist.npz") as data:
        pixels, labels = data["test_images"][::313], data["test_labels"][::313]
    x_0 = torch.nn.functional.pad(torch.from_numpy(pixels).float().movedim(-1, 1) / 127.5 - 1, (2, 2, 2, 2), value=-1.0)
    model = fs.zoo.load("fashion-mnist")
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    for half_logsnr, limit in ((-1.0, 0.10), (0.5, 0.035), (2.0, 0.006)):
        t = model.process.time(half_logsnr)
        x_t = model.process.alpha(t) * x_0 + model.process.sigma(t) * noise
        with torch.no_grad():
            error = (model(x_t.float(), t, torch.from_numpy(labels).long()) - x_0).square().mean()
        assert float(error) < limit


def test_unknown_models_are_answered():
    with pytest.raises(InputError, match="did you mean 'fashion-mnist'"):
        fs.zoo.load("fashion_mnist")

"""Samples of every shape by every command: pictures as pictures, latents by their decoder, all else as numbers."""

from __future__ import annotations

import pickle
import sys
import types
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from support.generating import fewstep
from torch import nn

import fewstep as fs
from fewstep.errors import InputError
from fewstep.models.loading import load_edm_pickle, load_entry
from fewstep.models.model import Model

SHAPES = [(7, 3), (1, 64), (5,), (2, 8, 8), (4, 8, 8), (16, 8, 8), (3, 4, 8, 8)]
CODE = """
import torch, fewstep as fs
from fewstep.models.model import Model

def far(x, t):
    return 0.3 * x.tanh() + 5.0

def load():
    return fs.Denoiser(far, fs.processes.VPLinear(), "x0", shape=SHAPE)

def decoded():
    return Model(load(), decode=lambda x: x.flatten(1)[:, :12].reshape(-1, 3, 2, 2) / 10)
"""


@pytest.fixture(params=SHAPES, ids=str)
def entry(request, tmp_path, monkeypatch):
    """A model of another shape by its entry, whose samples lie around 5."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("shaped", None)
    (tmp_path / "shaped.py").write_text(CODE.replace("SHAPE", str(request.param)))
    yield request.param
    sys.modules.pop("shaped", None)


def exact(shape, seeds):
    """The samples themselves."""
    model = fs.Denoiser(lambda x, t: 0.3 * x.tanh() + 5.0, fs.processes.VPLinear(), "x0", shape=shape)
    return fs.sample(model, fs.UniPC(2), fs.grids.karras(model.process, 3), seeds=seeds).numpy()


SAMPLER = ("--solver", "unipc:order=2", "--grid", "karras", "--steps", "3")


def test_samples_that_are_no_pictures_are_kept_as_numbers(entry, tmp_path):
    printed = fewstep("sample", "--model", "shaped:load", *SAMPLER, "--num", 3, "--out", "out.npz")
    assert "3 samples" in printed
    held = np.load("out.npz")
    assert held["samples"].dtype == np.float32
    np.testing.assert_allclose(held["samples"], exact(entry, range(3)), rtol=1e-6)
    fewstep("generate", "--model", "shaped:load", *SAMPLER, "--num", 5, "--shard-size", 2, "--out", "many")
    made = np.concatenate([np.load(path)["samples"] for path in sorted((tmp_path / "many").glob("*.npz"))])
    np.testing.assert_allclose(made, exact(entry, range(5)), rtol=1e-6)
    # It is resumed, and what is there is checked.
    (tmp_path / "many" / "samples-00001.npz").unlink()
    fewstep("generate", "--model", "shaped:load", *SAMPLER, "--num", 5, "--shard-size", 2, "--out", "many")
    again = np.concatenate([np.load(path)["samples"] for path in sorted((tmp_path / "many").glob("*.npz"))])
    np.testing.assert_array_equal(again, made)


def test_no_picture_is_made_of_them(entry, tmp_path):
    for out in ("out.png", "pictures"):
        with pytest.raises(InputError, match=r"no pictures .*: write --out samples.npz"):
            fewstep("sample", "--model", "shaped:load", "--steps", 2, "--num", 2, "--out", out)
        assert not (tmp_path / out).exists()
    with pytest.raises(InputError, match="write --format npz"):
        fewstep("generate", "--model", "shaped:load", "--steps", 2, "--num", 2, "--format", "png", "--out", "many")
    assert not (tmp_path / "many").exists()


def test_they_are_compared_as_numbers(entry, tmp_path):
    words = ("--model", "shaped:load", "--steps", 2, "--num", 3, "--solvers", "ddim,unipc", "--grids", "karras")
    words += ("--exact-steps", 10, "--out", "table")
    fewstep("compare", *words)
    rows = (tmp_path / "table" / "table.csv").read_text()
    cells = {path: path.read_bytes() for path in (tmp_path / "table").glob("cell-*")}
    assert "ddim" in rows and len(cells) == 4 and (tmp_path / "table" / "report.html").exists()
    fewstep("compare", *words)  # What was measured is kept.
    assert cells == {path: path.read_bytes() for path in (tmp_path / "table").glob("cell-*")}
    with pytest.raises(InputError, match=r"no pictures .*, which fd compares: write --metrics error"):
        fewstep("compare", *words[:-1], "other", "--metrics", "fd", "--features", "fashion-mnist")


def test_they_are_not_evaluated_as_pictures(entry):
    fewstep("sample", "--model", "shaped:load", *SAMPLER, "--num", 3, "--out", "out.npz")
    with pytest.raises(InputError, match="samples that are no pictures"):
        fewstep("evaluate", "out.npz", "--features", "fashion-mnist")


@pytest.mark.parametrize("entry", [(16, 8, 8)], indirect=True)
def test_a_models_own_decoder_makes_the_pictures(entry):
    fewstep("sample", "--model", "shaped:decoded", *SAMPLER, "--num", 2, "--out", "out.npz")
    images = np.load("out.npz")["images"]
    latents = exact(entry, range(2)).reshape(2, -1)[:, :12].reshape(2, 3, 2, 2).transpose(0, 2, 3, 1) / 10
    np.testing.assert_allclose(images, (latents + 1) * 127.5, atol=0.5001)
    fewstep("sample", "--model", "shaped:decoded", *SAMPLER, "--num", 1, "--out", "out.png")
    with Image.open("out.png") as picture:
        assert picture.mode == "RGB"


class Latent(nn.Module):
    """An EDM2 network on 4×4×4 latents: the exact prediction of a Gaussian of deviation 0.5."""

    def __init__(self, channels=4):
        super().__init__()
        self.img_resolution, self.img_channels, self.label_dim = 4, channels, 0

    def forward(self, x, sigma, class_labels=None):
        return x * (0.25 / (0.25 + sigma**2)).view(-1, 1, 1, 1)


class StabilityVAEEncoder:
    """What EDM2's pickles hold beside a network on latents, with a stretch in place of the autoencoder."""

    scale, bias = 0.125, -0.25

    def encode_pixels(self, x):
        small = torch.nn.functional.avg_pool2d(x.float() / 255, 2)
        mean = torch.cat([small, small.mean(1, keepdim=True)], dim=1)
        return torch.cat([mean, torch.ones_like(mean)], dim=1)

    def encode_latents(self, x):
        mean, std = x.chunk(2, dim=1)
        return (mean + torch.randn_like(mean) * std) * self.scale + self.bias

    def decode(self, x):
        raw = ((x.float() - self.bias) / self.scale)[:, :3]
        return torch.nn.functional.interpolate(raw, scale_factor=2).clamp(0, 1).mul(255).to(torch.uint8)


class StandardRGBEncoder:
    def decode(self, x):
        raise AssertionError("pixels need no decoder")


class Missing:
    def decode(self, x):
        raise OSError("the autoencoder is not here\nand more lines")


KINDS = (Latent, StabilityVAEEncoder, StandardRGBEncoder, Missing)
for kind in KINDS:
    kind.__module__ = "edm2_of_tests"


@pytest.fixture
def pickled(tmp_path, monkeypatch):
    module = types.ModuleType("edm2_of_tests")
    for kind in KINDS:
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(tmp_path)

    def write(**held):
        (tmp_path / "network.pkl").write_bytes(pickle.dumps(held))
        return tmp_path / "network.pkl"

    return write


def test_a_latent_pickle_is_decoded_by_its_own_encoder(pickled):
    model = load_edm_pickle(pickled(ema=Latent(), encoder=StabilityVAEEncoder()))
    latents = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.05 - 0.2
    expected = StabilityVAEEncoder().decode(latents)
    torch.testing.assert_close(model.images(latents), expected.float() / 127.5 - 1)
    state = torch.get_rng_state()
    encoded = model.encode(model.images(latents))
    assert torch.equal(torch.get_rng_state(), state)
    # Means, and no draw around them: half a grey level of rounding, in latents.
    mean = (StabilityVAEEncoder().encode_pixels(expected)[:, :4]) * 0.125 - 0.25
    torch.testing.assert_close(encoded, mean, rtol=0, atol=1e-6)
    words = ("--model", "network.pkl", "--trust-pickle", *SAMPLER, "--num", 2)
    fewstep("sample", *words, "--out", "out.png")
    fewstep("sample", *words, "--out", "out.npz")
    plan = fs.UniPC(2).plan(fs.grids.karras(model.denoiser.process, 3))
    drawn = fs.execute(plan, model.denoiser, fs.initial_state(plan.grid, (4, 4, 4), range(2)))
    images = np.load("out.npz")["images"]
    assert images.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(images, StabilityVAEEncoder().decode(drawn).permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("held", [{}, {"encoder": None}, {"encoder": StandardRGBEncoder()}])
def test_a_pickle_on_pixels_needs_no_decoder(pickled, held):
    assert load_edm_pickle(pickled(ema=Latent(channels=3), **held)).decode is None


def test_a_latent_pickle_without_an_encoder_gives_numbers(pickled):
    pickled(ema=Latent())
    words = ("--model", "network.pkl", "--trust-pickle", "--steps", 2, "--num", 2)
    fewstep("sample", *words, "--out", "out.npz")
    assert np.load("out.npz")["samples"].shape == (2, 4, 4, 4)
    with pytest.raises(InputError, match="no pictures"):
        fewstep("sample", *words, "--out", "out.png")


def test_a_decoder_that_fails_is_named_before_the_work(pickled):
    pickled(ema=Latent(), encoder=Missing())
    with pytest.raises(InputError, match=r"the Missing of .* fails: the autoencoder is not here$"):
        fewstep("sample", "--model", "network.pkl", "--trust-pickle", "--steps", 2, "--num", 2, "--out", "out.png")


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x, t):
        return 0.3 * self.drop(x)


def trained() -> fs.Denoiser:
    return fs.Denoiser(Dropping(), fs.processes.VPLinear(), "x0", shape=(1, 4, 4))


def evaluated() -> fs.Denoiser:
    return fs.Denoiser(Dropping().eval(), fs.processes.VPLinear(), "x0", shape=(1, 4, 4))


def guided() -> Model:
    return Model(fs.guidance.StaticThreshold(trained(), 5.0), parts=(nn.Sequential(Dropping()),))


@pytest.mark.parametrize("make", [trained, guided])
def test_a_network_in_training_mode_is_used_in_evaluation_mode(make, monkeypatch):
    module = types.ModuleType("entry_of_tests")
    module.make, module.evaluated = make, evaluated
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.warns(UserWarning, match="network in training mode .* evaluation mode"):
        model = load_entry("entry_of_tests:make")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = load_entry("entry_of_tests:evaluated")
    plan = fs.UniPC(2).plan(fs.grids.karras(model.denoiser.process, 4))
    torch.testing.assert_close(model.draw(plan, range(4)), same.draw(plan, range(4)), rtol=0, atol=0)
    assert not any(part.training for network in model.parts for part in network.modules())

"""Model folders run no code and fetch nothing: each test would notice."""

from __future__ import annotations

import json
import socket
import sys

import pytest

import fewstep as fs
from fewstep.errors import InputError
from fewstep.models import pipelines

diffusers = pytest.importorskip("diffusers")

CODE = "import pathlib\npathlib.Path(__file__).with_name('RAN').write_text('ran')\n"
CLASS = CODE + "class Evil:\n    pass\nclass EvilNet:\n    pass\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A whole pipeline; any use of the network and any load by diffusers is an error."""
    network = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )
    diffusers.DDPMPipeline(network, diffusers.DDPMScheduler()).save_pretrained(tmp_path / "p")

    def refuse(*args, **kwargs):
        raise AssertionError("something was fetched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tmp_path / "p"


@pytest.fixture
def untouched(monkeypatch):
    """Whatever the installed diffusers would do with the folder, it is not asked."""

    def refuse(*args, **kwargs):
        raise AssertionError("diffusers was asked to load the folder")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", refuse)


def change(path, **values):
    data = json.loads(path.read_text())
    data.update(values)
    path.write_text(json.dumps(data))


def hostile_class(folder):
    (folder / "evil.py").write_text(CLASS)
    change(folder / "model_index.json", _class_name=["evil", "Evil"])


def hostile_word(folder):
    (folder / "evil.py").write_text(CLASS)
    change(folder / "model_index.json", _class_name="evil")


def hostile_component(folder):
    (folder / "unet" / "evilnet.py").write_text(CLASS)
    change(folder / "model_index.json", unet=["evilnet", "EvilNet"])


def hostile_scheduler(folder):
    (folder / "scheduler" / "evilnet.py").write_text(CLASS)
    change(folder / "model_index.json", scheduler=["evilnet", "EvilNet"])


def hostile_shadow(folder):
    (folder / "unet" / "diffusers.py").write_text(CLASS)


def hostile_module(folder):
    change(folder / "model_index.json", unet=["os", "system"])


def hostile_attribute(folder):
    change(folder / "model_index.json", unet=["diffusers", "utils.os"])


def hostile_parent(folder):
    change(folder / "model_index.json", **{"../unet": ["diffusers", "UNet2DModel"]})


def hostile_map(folder):
    (folder / "unet" / "evil.py").write_text(CLASS)
    change(folder / "unet" / "config.json", auto_map={"AutoModel": "evil.EvilNet"})


def hostile_types(folder):
    change(folder / "model_index.json", unet=["diffusers", 3])


HOSTILE = [
    hostile_class,
    hostile_word,
    hostile_component,
    hostile_scheduler,
    hostile_shadow,
    hostile_module,
    hostile_attribute,
    hostile_parent,
    hostile_map,
    hostile_types,
]


@pytest.mark.parametrize("make", HOSTILE)
def test_no_code_of_a_folder_is_run(folder, make, untouched):
    make(folder)
    with pytest.raises(InputError, match="not loaded|damaged"):
        pipelines.load_pipeline(folder)
    assert not list(folder.rglob("RAN")) and "evil" not in sys.modules


def test_the_folder_itself_is_well(folder):
    assert pipelines.load_pipeline(folder).denoiser.shape == (1, 8, 8)


def test_a_pickled_network_is_not_read(folder):
    """Weights as a pickle beside a missing safetensors file are refused."""
    import pickle

    class Evil:
        def __reduce__(self):
            return (open, (str(folder / "RAN"), "w"))

    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="cannot be loaded"):
        pipelines.load_pipeline(folder)
    assert not (folder / "RAN").exists()


@pytest.mark.parametrize("size", [None, -4, 0, 31, 10**6, "8", [8], [8, 8, 8], [8, None], 8.5, True])
def test_a_sample_size_that_is_none(folder, size):
    change(folder / "unet" / "config.json", sample_size=size)
    with pytest.raises(InputError, match="sample_size|cannot be loaded"):
        pipelines.load_pipeline(folder)


def test_weights_that_lack_a_tensor(folder):
    from safetensors.torch import load_file, save_file

    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights[sorted(weights)[0]]
    save_file(weights, file)
    with pytest.raises(InputError, match=r"lacks 1 tensors of unet|cannot be loaded"):
        pipelines.load_pipeline(folder)


INDICES = ["", "[]", "null", "[" * 100_000, '{"_class_name": null}', '{"a": 9' + "9" * 5000 + "}"]


@pytest.mark.parametrize("text", INDICES, ids=lambda text: text[:9])
def test_an_index_that_is_none(folder, text, untouched):
    (folder / "model_index.json").write_text(text)
    with pytest.raises(InputError):
        pipelines.load_pipeline(folder)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("scheduler/scheduler_config.json", "beta_end", "x"),
        ("scheduler/scheduler_config.json", "num_train_timesteps", None),
        ("scheduler/scheduler_config.json", "num_train_timesteps", -3),
        ("scheduler/scheduler_config.json", "prediction_type", ["epsilon"]),
        ("unet/config.json", "block_out_channels", None),
        ("unet/config.json", "in_channels", "3"),
        ("unet/config.json", "down_block_types", {}),
    ],
)
def test_configurations_are_answered(folder, file, key, value):
    change(folder / file, **{key: value})
    with pytest.raises(InputError):
        pipelines.load_pipeline(folder)


def test_the_pipelines_of_diffusers_that_have_their_own_modules():
    """``stable_diffusion`` is diffusers' own module, and a safety checker in it no code of the folder."""
    from fewstep.models.folder import _check_class

    _check_class(None, "safety_checker", "stable_diffusion", "StableDiffusionSafetyChecker")
    assert fs.models is not None

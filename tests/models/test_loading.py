"""Models of one's own: Python entries and EDM pickles."""

import pickle

import pytest
import torch

import fewstep as fs
from fewstep.errors import InputError
from fewstep.fingerprint import model_fingerprint
from fewstep.models.loading import load_edm_pickle, load_entry


class Preconditioned(torch.nn.Module):
    """What EDM's pickles hold: (x, σ, one-hot) → x0, here the exact one of Gaussian data around a class's level."""

    def __init__(self, label_dim: int) -> None:
        super().__init__()
        self.img_resolution, self.img_channels, self.label_dim = 4, 2, label_dim
        self.sigma_min, self.sigma_max = 0.0, float("inf")
        self.levels = torch.nn.Parameter(torch.linspace(-1.0, 1.0, max(label_dim, 1)))

    def forward(self, x, sigma, class_labels=None):
        mean = 0.0 if class_labels is None else (class_labels @ self.levels).view(-1, 1, 1, 1)
        share = (0.25 / (0.25 + sigma**2)).view(-1, 1, 1, 1)
        return mean + share * (x - mean)


# The tests' modules have no importable name; a pickle needs one.
Preconditioned.__module__ = "edm_networks_of_tests"


@pytest.fixture
def pickled(tmp_path, monkeypatch):
    import sys
    import types

    module = types.ModuleType("edm_networks_of_tests")
    module.Preconditioned = Preconditioned
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def write(held):
        (tmp_path / "network.pkl").write_bytes(pickle.dumps(held))
        return tmp_path / "network.pkl"

    return write


def test_an_edm_pickle_is_an_exact_denoiser_of_its_classes(pickled):
    model = load_edm_pickle(pickled({"ema": Preconditioned(3)}))
    assert model.denoiser.shape == (2, 4, 4) and model.denoiser.num_classes == 3
    plan = fs.Heun().plan(fs.grids.karras(model.denoiser.process, 40))
    images = model.draw(plan, range(40), [0, 2] * 20)
    for label, level in ((0, -1.0), (1, 1.0)):
        assert float(images[label::2].mean()) == pytest.approx(level, abs=0.1)
        assert float(images[label::2].std()) == pytest.approx(0.5, abs=0.05)
    plain = Preconditioned(0)
    del plain.sigma_min, plain.sigma_max  # EDM2's networks say nothing of their levels.
    denoiser = load_edm_pickle(pickled({"ema": plain})).denoiser
    assert denoiser.num_classes is None and denoiser.process == fs.processes.EDM(0.002, 80.0)


class Raising:
    def __reduce__(self):
        return exec, ("raise RuntimeError('Attempting to deserialize object on a CUDA device')",)


def test_pickles_without_a_network_are_answered(pickled, tmp_path):
    with pytest.raises(InputError, match="holds dict"):
        load_edm_pickle(pickled({"ema": {}}))
    raising = pickle.dumps(Raising())  # as torch does for weights of a GPU that is not here
    for damaged in (b"no pickle", b"I am\n", raising):
        (tmp_path / "network.pkl").write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read as a pickle"):
            load_edm_pickle(tmp_path / "network.pkl")
    with pytest.raises(InputError, match="cannot be read"):
        load_edm_pickle(tmp_path / "missing.pkl")


def test_an_entry_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_models_of_tests.py").write_text(
        "import fewstep as fs\n\n\ndef good():\n"
        "    return fs.Denoiser(lambda x, t: 0 * x, fs.processes.VPLinear(), 'x0', shape=(1, 2, 2))\n\n\n"
        "number = 3\n\n\ndef broken():\n    return fs.no_such_thing\n\n\n"
        "def shapeless():\n    return fs.Denoiser(lambda x, t: 0 * x, fs.processes.VPLinear(), 'x0')\n"
    )
    model = load_entry("own_models_of_tests:good")
    images = model.draw(fs.DDIM().plan(fs.grids.karras(model.denoiser.process, 5)), [0])
    assert float(images.abs().max()) < 0.1 and model_fingerprint(model) == ""
    for text, answer in (
        ("own_models_of_tests:shapeless", "shape="),
        ("own_models_of_tests:missing", "module:function"),
        ("own_models_of_tests:number", "name a function"),
        ("./own_models_of_tests.py:good", "module:function"),
        (":good", "module:function"),
    ):
        with pytest.raises(InputError, match=answer):
            load_entry(text)
    with pytest.raises(AttributeError, match="no_such_thing"):
        load_entry("own_models_of_tests:broken")

"""Inception's features: torch-fidelity's own network with weights from a file, which is never trusted.

torch-fidelity imports torchvision for its other networks. Where torchvision is not there, an empty stand-in is put in
its place for the import: Inception itself is torch-fidelity's, and uses nothing of it.
"""

import importlib.util
import pickle
import sys
from unittest.mock import MagicMock

import pytest
import torch

from fewstep.errors import InputError, MissingPackageError
from fewstep.metrics import features, frechet_distance
from fewstep.metrics.moments import Moments

there = pytest.mark.skipif(not importlib.util.find_spec("torch_fidelity"), reason="torch-fidelity is not installed")


@pytest.fixture
def torchvision(monkeypatch):
    if not importlib.util.find_spec("torchvision"):
        for name in ("", ".datasets", ".transforms", ".transforms.functional"):
            monkeypatch.setitem(sys.modules, f"torchvision{name}", MagicMock())


@pytest.fixture
def network(torchvision, monkeypatch):
    """The real network with random weights."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
    monkeypatch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    monkeypatch.undo()
    return made


def pixels(seed, n=2):
    return torch.randint(0, 256, (n, 3, 32, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@there
def test_features_are_those_of_torch_fidelity(network, torchvision, tmp_path):
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    extractor = features(f"inception:{tmp_path / 'weights.pth'}")
    images = pixels(0)
    made = extractor(images / 127.5 - 1.0)
    assert made.shape == (2, 2048)
    assert torch.equal(made, network(images)[0])
    grey = images[:, :1]
    assert torch.equal(extractor(grey / 127.5 - 1.0), network(grey.expand(-1, 3, -1, -1).contiguous())[0])
    moments = Moments(extractor.tag)
    moments.update(made)
    assert frechet_distance(moments, moments) == pytest.approx(0.0, abs=1e-6)


class Trap:
    def __reduce__(self):
        return (open, ("trapped", "w"))


@there
@pytest.mark.parametrize("content", ["pickle", "damaged", "empty", "other weights", "no weights"])
def test_a_file_that_is_not_its_weights_is_refused_unread(content, torchvision, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "weights.pth"
    if content == "pickle":
        file.write_bytes(pickle.dumps(Trap(), protocol=2))
    elif content == "damaged":
        file.write_bytes(b"PK\x03\x04 and no more")
    elif content == "empty":
        file.write_bytes(b"")
    else:
        torch.save({"fc.weight": torch.zeros(2)} if content == "other weights" else [1, 2], file)
    with pytest.raises(InputError, match="no weights of the FID's Inception"):
        features(f"inception:{file}")
    assert not (tmp_path / "trapped").exists()


def test_it_needs_its_package(tmp_path, monkeypatch):
    for name in ("torch_fidelity", "torch_fidelity.feature_extractor_inceptionv3"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(MissingPackageError, match="pip install torchvision torch-fidelity"):
        features(f"inception:{tmp_path / 'weights.pth'}")

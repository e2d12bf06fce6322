"""Inception's features: torch-fidelity's own network with weights from a file, which is never trusted.

torch-fidelity imports torchvision for its other networks; Inception uses nothing of it. So where torchvision is not
installed, torch-fidelity lies apart, in a folder of the environment, and is imported with an empty stand-in for it.
"""

import pickle
import sys
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

from fewstep.errors import InputError, MissingPackageError
from fewstep.metrics import features, frechet_distance
from fewstep.metrics.moments import Moments

APART = Path(sys.prefix) / "torch-fidelity"


@pytest.fixture
def package(monkeypatch):
    """torch-fidelity, as long as the test runs."""
    if not find_spec("torch_fidelity"):
        if not APART.is_dir():
            pytest.skip("torch-fidelity is not installed")
        monkeypatch.syspath_prepend(APART)
        for name in ("", ".datasets", ".transforms", ".transforms.functional"):
            monkeypatch.setitem(sys.modules, f"torchvision{name}", MagicMock())
    import torch_fidelity

    yield torch_fidelity
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch_fidelity"]:
        del sys.modules[name]


@pytest.fixture
def network(package):
    """The real network with random weights."""
    module = package.feature_extractor_inceptionv3
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        return module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])


def pixels(seed, n=2):
    return torch.randint(0, 256, (n, 3, 32, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_features_are_those_of_torch_fidelity(network, tmp_path):
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


@pytest.mark.parametrize("content", ["pickle", "damaged", "empty", "other weights", "no weights"])
def test_a_file_that_is_not_its_weights_is_refused_unread(content, package, tmp_path, monkeypatch):
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

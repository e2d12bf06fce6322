"""Files that would run code: no command runs it unless the flag or the name says so; each test would notice."""

from __future__ import annotations

import json
import os
import pickle
import sys

import numpy as np
import pytest
import torch
from support.generating import fewstep

from fewstep.cli.app import COMMANDS
from fewstep.errors import FewstepError, InputError
from fewstep.metrics import features
from fewstep.metrics.images import image_batches
from fewstep.metrics.moments import Moments

OF_A_MODEL = ["sample", "generate", "compare", "calibrate", "skip diagnose", "skip search"]
"""The commands that load ``--model``."""


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A working directory; ``trap`` is written by whatever runs the code of a pickle."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path / "RAN"


def words(name):
    """The shortest call of a command."""
    out = {"sample": "o.npz", "generate": "o", "compare": "o", "calibrate": "o.json"}
    more = ["--data", "images.npz"] if name == "skip diagnose" else ["--num", "8"]
    more += ["--features", "fashion-mnist"] if name == "skip search" else []
    return [*name.split(), *more, "--out", out.get(name, "o.json" if name == "skip search" else "o")]


def test_every_command_that_takes_a_model_is_here():
    taken = {name for name, (kind, _) in COMMANDS.items() if "trust_pickle" in kind.__dataclass_fields__}
    assert set(OF_A_MODEL) <= taken


@pytest.mark.parametrize("suffix", [".pkl", ".pickle", ".pt", ".pth"])
@pytest.mark.parametrize("name", OF_A_MODEL)
def test_a_pickle_is_not_opened_without_the_flag(name, suffix, trap):
    (trap.parent / f"network{suffix}").write_bytes(pickle.dumps(Evil(trap)))
    np.savez("images.npz", images=np.zeros((4, 4, 4, 1), np.uint8))
    with pytest.raises(InputError, match="--trust-pickle"):
        fewstep(*words(name), "--model", f"network{suffix}")
    assert not trap.exists()


def test_with_the_flag_it_is_run(trap):
    """So that the tests above would notice."""
    (trap.parent / "network.pkl").write_bytes(pickle.dumps(Evil(trap)))
    with pytest.raises((FewstepError, TypeError)):
        fewstep(*words("sample"), "--model", "network.pkl", "--trust-pickle")
    assert trap.exists()


@pytest.mark.parametrize("model", ["evil", "evil.py", "./evil", "folder"])
def test_a_module_is_not_imported_without_a_colon(model, trap):
    (trap.parent / "evil.py").write_text(f"open({str(trap)!r}, 'w')\n")
    (trap.parent / "folder").mkdir()
    (trap.parent / "folder" / "__init__.py").write_text(f"open({str(trap)!r}, 'w')\n")
    for name in OF_A_MODEL:
        np.savez("images.npz", images=np.zeros((4, 4, 4, 1), np.uint8))
        with pytest.raises(InputError):
            fewstep(*words(name), "--model", model)
    assert not trap.exists() and "evil" not in sys.modules


@pytest.mark.parametrize("shadow", ["torch", "fewstep", "diffusers", "numpy", "typing_extensions"])
def test_a_module_of_the_working_directory_shadows_none(shadow, trap):
    """The working directory is searched for the module that is named; nothing else comes from there."""
    (trap.parent / f"{shadow}.py").write_text(f"open({str(trap)!r}, 'w')\n")
    fewstep("sample", "--num", 1, "--steps", 1, "--out", "o.npz")
    assert not trap.exists()


ENTRIES = ["os:system", "os.path:join", "builtins:exit", "os:getcwd", "sys:exit", "subprocess:Popen", "evil:x:y", ":f"]


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_that_is_no_loader_is_answered(entry, trap):
    with pytest.raises(InputError):
        fewstep("sample", "--model", entry, "--num", 1, "--out", "o.npz")
    assert not list(trap.parent.iterdir())


def test_arrays_of_objects_are_not_unpickled(trap):
    for name, arrays in {
        "images": {"images": np.array([Evil(trap)], dtype=object)},
        "statistics": {"mu": np.array([Evil(trap)], dtype=object), "sigma": np.zeros((1, 1))},
    }.items():
        np.savez(f"{name}.npz", **arrays)
    with pytest.raises(InputError):
        list(image_batches(trap.parent / "images.npz"))
    with pytest.raises(InputError):
        Moments.load(trap.parent / "statistics.npz")
    for name in ("images.npz", "statistics.npz"):
        with pytest.raises(InputError):
            fewstep("evaluate", "images.npz", "--features", "fashion-mnist", "--reference", name)
    assert not trap.exists()


@pytest.mark.parametrize("kind", ["torchscript", "inception", "dinov2"])
def test_features_are_not_unpickled(kind, trap):
    (trap.parent / "weights.pt").write_bytes(pickle.dumps(Evil(trap), protocol=2))
    torch.save({"weights": Evil(trap)}, trap.parent / "saved.pt")
    for name in ("weights.pt", "saved.pt"):
        with pytest.raises(FewstepError):
            features(f"{kind}:{name}")
    assert not trap.exists()


@pytest.mark.parametrize("option", ["--recipe", "--grid", "--skip", "--prompts"])
def test_files_of_settings_are_text(option, trap):
    (trap.parent / "evil.json").write_bytes(pickle.dumps(Evil(trap)))
    with pytest.raises(InputError):
        fewstep("sample", option, "evil.json", "--num", 1, "--out", "o.npz")
    assert not trap.exists()


def test_code_in_a_folder_of_features_is_not_run(trap, monkeypatch):
    """Nor is anybody asked whether it may: a job has nobody to ask."""
    pytest.importorskip("transformers")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    folder = trap.parent / "features"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(trap)!r}, 'w')\nclass Evil: pass\n")
    mapped = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}
    for kind in ("dinov2", "dinov2x", "evil"):
        (folder / "config.json").write_text(json.dumps({"model_type": kind, "auto_map": mapped}))
        (folder / "model.safetensors").write_bytes(b"")
        with pytest.raises(FewstepError):
            features("dinov2:features")
    assert not trap.exists()


@pytest.mark.parametrize("kind", ["torchscript", "inception", "dinov2"])
def test_features_that_would_be_waited_for(kind, trap):
    """A pipe or a device has no end."""
    os.mkfifo(trap.parent / "pipe")
    for name in ("pipe", "/dev/zero"):
        with pytest.raises(InputError, match="a pipe or a device"):
            features(f"{kind}:{name}")

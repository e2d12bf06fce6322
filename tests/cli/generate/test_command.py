"""``fewstep generate``: a sample depends on its seed alone, whatever happens to the run."""

import contextlib
import gc
import json
import os
import re
import select
import sys
import weakref

import numpy as np
import pytest
import torch
from support import killing, two_processes
from support.generating import fewstep, loaded, same_files
from support.waiting import needs_gpu

import fewstep as fs
from fewstep.cli.app import app
from fewstep.metrics import to_uint8
from fewstep.models.model import Model

SMALL = ["--solver", "sa:few_step=True", "--steps", 6]


def test_samples_are_those_of_the_library(tmp_path):
    fewstep("generate", *SMALL, "--seeds", "3,5-8", "--shard-size", 2, "--batch-size", 2, "--out", tmp_path / "a")
    images, seeds, labels = loaded(tmp_path / "a")
    assert seeds == [3, 5, 6, 7, 8] and labels == [3, 5, 6, 7, 8]
    model = fs.zoo.load("fashion-mnist")
    solver = fs.SASolver(few_step=True)
    grid = fs.grids.optimized(model.process, solver, 6)
    expected = to_uint8(fs.sample(model, solver, grid, seeds=seeds, cond=labels))
    assert np.abs(images.astype(int) - expected).max() <= 1
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["settings"]["seeds"] == "3,5-8" and len(manifest["settings"]["model_hash"]) == 64
    assert fs.Plan.from_json(manifest["plan"]).nfe == 6
    assert manifest["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert manifest["files"] == ["samples-00000.npz", "samples-00001.npz", "samples-00002.npz"]


def test_without_a_gpu_the_graph_is_none_and_the_samples_are_the_same(tmp_path):
    words = ["generate", *SMALL, "--num", 3, "--out"]
    with pytest.warns(UserWarning, match="graph=True: a CUDA graph needs a CUDA device"):
        fewstep(*words, tmp_path / "graph", "--graph")
    fewstep(*words, tmp_path / "loop")
    same_files(tmp_path / "graph", tmp_path / "loop")


@needs_gpu
def test_on_a_gpu_a_graph_gives_the_samples_of_the_loop(tmp_path):
    words = ["generate", *SMALL, "--device", "cuda", "--num", 12, "--batch-size", 4, "--out"]
    fewstep(*words, tmp_path / "graph", "--graph")
    fewstep(*words, tmp_path / "loop")
    (one, *_), (other, *_) = (loaded(tmp_path / name) for name in ("graph", "loop"))
    assert np.abs(one.astype(int) - other).max() <= 1


def test_a_run_killed_at_any_moment_goes_on_to_the_same_600_images(tmp_path, monkeypatch, one_thread):
    words = ["generate", "--model", "support.generating:unet", "--steps", "6", "--num", "600", "--batch-size", "24"]
    words += ["--shard-size", "48", "--out"]
    folder = tmp_path / "a"
    monkeypatch.setenv("SLOW", "0.03")
    for wanted in (1, 4):
        assert killing.killed_when([*words, str(folder)], lambda: len(list(folder.glob("*.npz"))) >= wanted)  # noqa: B023
    monkeypatch.delenv("SLOW")
    assert 4 <= len(list(folder.glob("*.npz"))) < 13
    for name in ("a", "whole"):
        fewstep(*words, tmp_path / name)
    same_files(folder, tmp_path / "whole")
    images, seeds, _ = loaded(folder, labels=False)
    assert seeds == list(range(600)) and images.shape == (600, 8, 8, 1) and images.std() > 10


def test_the_versions_of_a_run_that_went_on_are_added(tmp_path, entry, monkeypatch):
    from fewstep.cli.shared import manifest

    words = ["generate", "--model", entry, "--steps", 3, "--num", 2, "--out", tmp_path / "a"]
    fewstep(*words)
    first = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert first["versions"]["threads"] == str(torch.get_num_threads())
    monkeypatch.setattr(manifest, "versions", lambda: {**first["versions"], "torch": "9.9"})
    for _ in range(2):
        fewstep(*words)
        later = json.loads((tmp_path / "a" / "manifest.json").read_text())
        assert later == {**first, "versions_also": [{**first["versions"], "torch": "9.9"}]}


def test_without_a_terminal_progress_is_a_line_now_and_then(tmp_path, entry, monkeypatch):
    from fewstep.cli.shared import progress

    words = ["generate", "--model", entry, "--steps", 3, "--num", 6, "--batch-size", 2, "--out"]
    assert "sampling" not in fewstep(*words, tmp_path / "a")
    monkeypatch.setattr(progress, "PERIOD", 0.0)
    printed = fewstep(*words, tmp_path / "b")
    assert [f"sampling: {n} of 6" in printed for n in (2, 4, 6)] == [True] * 3 and "images/s" in printed


def test_a_terminal_has_a_bar_with_the_speed_and_the_time_left(tmp_path, monkeypatch):
    pty = pytest.importorskip("pty")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    words = ["generate", "--model", "support.generating:slow", "--steps", "3", "--num", "24", "--batch-size", "2"]
    words += ["--out", str(tmp_path / "a")]
    child, terminal = pty.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            sys.stdout = sys.stderr = os.fdopen(2, "w")
            app(words, standalone_mode=False)
        finally:
            os._exit(0)
    seen = b""
    with contextlib.suppress(OSError):  # The end of a terminal.
        while select.select([terminal], [], [], 60)[0] and (part := os.read(terminal, 4096)):
            seen += part
    os.close(terminal)
    os.waitpid(child, 0)
    text = seen.decode()
    assert "sampling" in text and re.search(r"\d+/24", text) and "24 images" in text
    assert re.search(r"\d\.\d images/s", text) and re.search(r"0:00:0\d", text)


def test_batch_and_shard_sizes_change_nothing(tmp_path):
    for name, batch, shard in (("a", 4, 100), ("b", 9, 5)):
        fewstep("generate", *SMALL, "--num", 9, "--batch-size", batch, "--shard-size", shard, "--out", tmp_path / name)
    one, two = (loaded(tmp_path / name) for name in "ab")
    assert one[1:] == two[1:] and np.abs(one[0].astype(int) - two[0]).max() <= 1


def test_two_processes_make_the_set_of_one(tmp_path, one_thread):
    """On a machine with one GPU too, where torch's barrier goes to the GPU of a process, unless it is told better."""
    with_a_gpu = "import torch\ntorch._C._get_accelerator = lambda *_: torch.device('cuda')\n"
    (tmp_path / "on_a_gpu.py").write_text(f"{with_a_gpu}from support.generating import unet\n")
    words = ["--steps", "6", "--num", "50", "--shard-size", "8", "--batch-size", "8", "--out"]
    printed = two_processes.run(["generate", "--model", "on_a_gpu:unet", *words, "two"], tmp_path)
    assert printed.count("50 images") == printed.count("in 2 processes") == 1
    assert "in 2 processes" not in fewstep("generate", "--model", "support.generating:unet", *words, tmp_path / "one")
    assert len(os.listdir(tmp_path / "one")) == 8
    same_files(tmp_path / "one", tmp_path / "two")


def test_a_mistake_ends_two_processes_with_a_line_each(tmp_path, entry):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    ended = two_processes.start(["generate", "--model", entry, "--num", "2", "--out", "full"], tmp_path)
    assert ended.returncode and "error: --out is 'full', which holds other files" in ended.stderr
    assert "[rank1]" not in ended.stderr and os.listdir(tmp_path / "full") == ["thesis.txt"]


def test_other_settings_are_refused_and_nothing_changes(tmp_path, entry, fails):
    words = ["generate", "--model", entry, "--num", 4, "--out", tmp_path / "a"]
    fewstep(*words, "--steps", 3)
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert "steps was 3 and is 4 now" in fails(*words, "--steps", 4)
    assert "all there already" in fewstep(*words, "--steps", 3)
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("mine")
    assert "other files" in fails(*words[:-1], tmp_path / "b")
    assert os.listdir(tmp_path / "b") == ["thesis.txt"]


def test_one_batch_of_images_is_alive_at_a_time(tmp_path, monkeypatch):
    made: list[weakref.ref] = []
    draw = Model.draw

    def watched(*args, **more):
        gc.collect()
        assert not any(images() is not None for images in made)
        images = draw(*args, **more)
        made.append(weakref.ref(images))
        return images

    monkeypatch.setattr(Model, "draw", watched)
    fewstep(
        "generate", "--model", "fashion-mnist", "--steps", 1, "--num", 6, "--batch-size", 2, "--out", tmp_path / "a"
    )
    assert len(made) == 3


def test_too_little_memory_is_one_line(tmp_path, entry, fails, monkeypatch):
    def draw(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has … If reserved …")

    monkeypatch.setattr(Model, "draw", draw)
    printed = fails("generate", "--model", entry, "--steps", 2, "--num", 2, "--out", tmp_path / "a")
    assert "CUDA out of memory: take a smaller batch" in printed
    assert os.listdir(tmp_path / "a") == ["manifest.json"]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ([], "how many samples"),
        (["--num", 3, "--seeds", "0-3"], "leave one of them out"),
        (["--seeds", "5-3"], "a range rises, write 3-5"),
        (["--seeds", "5-x"], "whole numbers"),
        (["--seeds", "1,1"], "repeated"),
        (["--seeds", 2**63], "below 2**63"),
        (["--num", 2, "--model", "fashion-mnist", "--class=--3"], "give the number of a class"),
        (["--num", 2, "--format", "jpg"], "npz or png"),
        (["--num", 2, "--batch-size", 0], "at least 1"),
        (["--num", 2, "--prompt", "a cat"], "takes no prompts"),
        (["--num", 2, "--class", 3], "has no classes"),
        (["--num", 2, "--guidance", 2], "no known null condition"),
        (["--num", 2, "--model", "network.pkl"], "add --trust-pickle"),
        (["--num", 2, "--model", "nowhere:model"], "module:function"),
        (["--num", 2, "--model", "support.generating:broken"], "not finite"),
        (["--num", 2, "--device", "cdua"], "write cpu, or cuda on a GPU"),
        (["--num", 2, "--device", "meta"], "holds no numbers"),
        (["--num", 2, "--out", "missing/folder"], "does not exist"),
    ],
)
def test_mistakes_are_one_line(words, answer, tmp_path, entry, fails, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert answer in fails("generate", "--model", entry, "--out", "a", "--steps", 2, *words)
    assert not list(tmp_path.glob("**/*.npz")) and not list(tmp_path.glob("**/.fewstep-*"))

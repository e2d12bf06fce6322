"""Every file that a command reads, mutated: done, or exit code 2 with one line, soon; the file stays as it is."""

from __future__ import annotations

import importlib
import itertools
import json
import random
import shutil
import sqlite3
import sys
import warnings
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support import killing, text_folder
from support.boundary import called, line, tree

import fewstep as fs
from fewstep.cli.app import COMMANDS
from fewstep.metrics import moments_of

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does"),
    pytest.mark.usefixtures("limited"),
]
for _, where in COMMANDS.values():
    importlib.import_module(where.partition(":")[0])
PROCESS = fs.processes.VPLinear()


@dataclass(frozen=True)
class Read:
    """A file that a command reads.

    Attributes:
        path: pattern of its name in the working directory.
        words: the command line.
        make: makes the file, and what belongs to it, in the working directory; None: the command does itself.
        cached: whether fewstep wrote it for itself, and may make it anew.
    """

    path: str
    words: list[str]
    make: Callable[[], Any] | None = None
    cached: bool = False


def recipe(steps: int = 2) -> fs.Recipe:
    plan = fs.UniPC(2).plan(fs.grids.karras(PROCESS, steps, end="zero"))
    model = {"network": "x", "prediction": "x0", "guidance_scale": 1.0}
    return fs.Recipe(plan, model=model, guidance=1.0, skip=None, tuning={"verdict": {}})


def fitted() -> fs.Recipe:
    """A recipe with a report and a formula."""
    denoiser = fs.Denoiser(lambda x, t: 0.3 * x.tanh(), PROCESS, "x0", shape=(1, 4, 4))
    grid = fs.grids.karras(PROCESS, 3, end="zero")
    return fs.calibrate(denoiser, fs.UniPC(2), grid, num=8, reference_steps=6, objective="local", analytic=1)


def pictures() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 28, 28), np.uint8)
    np.savez("pictures.npz", images=pixels[..., None], labels=np.arange(8))
    Path("pictures").mkdir()
    with zipfile.ZipFile("pictures.zip", "w") as archive:
        for i, image in enumerate(pixels):
            Image.fromarray(image).save(f"pictures/{i}.png")
            archive.write(f"pictures/{i}.png", f"00000/{i}.png")


def statistics() -> None:
    moments_of(torch.randn(99, 64, generator=torch.Generator().manual_seed(0))).save(Path("statistics.npz"))


def torchscript() -> None:
    torch.jit.script(torch.nn.Flatten()).save("features.pt")


def dinov2() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 28}
    transformers.Dinov2Model(transformers.Dinov2Config(**sizes)).save_pretrained("dinov2")


GENERATED = line("evaluate", images="out", reference="out", features="torchscript:features.pt")


def text() -> None:
    """A pipeline that takes prompts."""
    text_folder.stable_diffusion(Path("text"))


def unfinished() -> None:
    """The journal of a command that was killed when it was about to write its result."""
    assert killing.killed_at(CALIBRATE, Path.cwd(), "os.rename", 1)


GENERATE, COMPARE, TUNE, CALIBRATE = line("generate"), line("compare"), line("tune"), line("calibrate")
BY_RECIPE = line("sample", recipe="recipe.json", steps="2")
OF_PIPELINE = ["sample", "--model=pipeline", "--steps=1", "--num=1", "--out=out.npz"]
OF_TEXT = ["sample", "--model=text", "--prompt=a cat", "--steps=1", "--num=1", "--out=out.npz"]
EVALUATE = ["evaluate", "--reference=pictures.npz", "--out=out.json"]
COMPARED = [*EVALUATE, "--", "pictures.npz"]
JSON = {
    "grid": Read("grid.json", line("sample", grid="grid.json"), lambda: fs.grids.karras(PROCESS, 2).save("grid.json")),
    "recipe": Read("recipe.json", BY_RECIPE, lambda: recipe().save("recipe.json")),
    "calibrated": Read("recipe.json", line("sample", recipe="recipe.json", steps=None, grid=None),
                       lambda: fitted().save("recipe.json")),
    "book": Read("recipe.json", BY_RECIPE, lambda: fs.RecipeBook((recipe(2), recipe(3))).save("recipe.json")),
    "compared book": Read("recipe.json", line("compare", recipes="recipe.json"),
                          lambda: fs.RecipeBook((recipe(2), recipe(3))).save("recipe.json")),
    "skip": Read("skip.json", line("sample", model="support.generating:counted_unet", skip="skip.json"),
                 lambda: fs.skip.Profile(0.8, sigma_window=(0.1, 2.0), ramp=0.5).save("skip.json")),
    "spectrum": Read("spectrum.json", line("grid", grid="optimized", spectrum="spectrum.json"),
                     lambda: fs.spectra.Spectrum([1.0, 0.5], [1, 3]).save("spectrum.json")),
    "manifest": Read("out/manifest.json", GENERATE, cached=True),
    "evaluated manifest": Read("out/manifest.json", GENERATED),
    "manifest of compare": Read("out/manifest.json", COMPARE, cached=True),
    "cell": Read("out/cell-*.json", COMPARE, cached=True),
    "pipeline": Read("pipeline/model_index.json", OF_PIPELINE),
    "doctor": Read("pipeline/model_index.json", ["doctor", "pipeline", "--steps=2"]),
    "scheduler": Read("pipeline/scheduler/scheduler_config.json", OF_PIPELINE),
    "doctor's scheduler": Read("pipeline/scheduler/scheduler_config.json", ["doctor", "pipeline", "--steps=2"]),
    "network": Read("pipeline/unet/config.json", OF_PIPELINE),
    "autoencoder": Read("text/vae/config.json", OF_TEXT, text),
    "text encoder": Read("text/text_encoder/config.json", OF_TEXT, text),
    "tokenizer": Read("text/tokenizer/tokenizer_config.json", OF_TEXT, text),
    "vocabulary": Read("text/tokenizer/tokenizer.json", OF_TEXT, text),
    "dinov2": Read("dinov2/config.json", [*EVALUATE, "--features=dinov2:dinov2", "--", "pictures.npz"], dinov2),
}  # fmt: skip
"""Files of JSON."""
BYTES = {
    "shard": Read("out/samples-00000.npz", GENERATE),
    "evaluated shard": Read("out/samples-00000.npz", GENERATED),
    "images of a cell": Read("out/cell-*.npz", COMPARE, cached=True),
    "solution": Read("out/exact.npy", COMPARE, cached=True),
    "weights": Read("pipeline/unet/diffusion_pytorch_model.safetensors", OF_PIPELINE),
    "images": Read("pictures.npz", COMPARED),
    "picture": Read("pictures/3.png", line("evaluate", images="pictures", reference="pictures")),
    "zip": Read("pictures.zip", line("evaluate", images="pictures.zip", reference="pictures.zip")),
    "statistics": Read("statistics.npz", line("evaluate", images="pictures.npz", reference="statistics.npz"),
        statistics),
    "torchscript": Read("features.pt", [*EVALUATE, "--features=torchscript:features.pt", "--", "pictures.npz"]),
    "cache": Read("cache/*.npz", COMPARED, lambda: called(*COMPARED), cached=True),
    "storage": Read("out.tune/journal.db", TUNE, cached=True),
    "journal": Read("out.json.partial/*/*.npz", CALIBRATE, unfinished, cached=True),
    "solutions": Read("out.tune/*.safetensors", TUNE, cached=True),
}  # fmt: skip
"""Other files, and files of JSON that hold text of another kind."""
FILES = {**JSON, **BYTES}
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.text(max_size=5), st.just([]),
    st.just({}), st.lists(st.floats(), max_size=3), st.just("1.0"), st.just([None]), st.just([[[]]]),
)  # fmt: skip
EXAMPLES = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def made(tmp_path_factory, pipeline_folder):
    """Folders in which each kind of file has been made, which are copied."""
    kept: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in kept:
            kept[name] = tmp_path_factory.mktemp("made")
            shutil.copytree(pipeline_folder, kept[name] / "pipeline")
            with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                patch.chdir(kept[name])
                patch.setenv("FEWSTEP_CACHE", str(kept[name] / "cache"))
                read = FILES[name]
                pictures()
                torchscript()
                if read.make is not None:
                    read.make()
                elif "out" in Path(read.path).parts[0]:
                    answer = called(*(TUNE if read.words is TUNE else COMPARE if read.words is COMPARE else GENERATE))
                    assert (answer.code, answer.error) == (0, None), answer
        return kept[name]

    return folder


@pytest.fixture
def placed(made, place):
    """Puts a kind of file into the working directory anew, and returns its path."""

    def put(name: str) -> Path:
        for path in list(place.iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(made(name), place, dirs_exist_ok=True)
        (found, *_) = sorted(place.glob(FILES[name].path))
        return found

    return put


def check(name: str, path: Path, what: object) -> None:
    """Run the command; the file stays unless fewstep made it for itself and may do so again."""
    before = tree(path.parent)
    answer = called(*FILES[name].words)
    assert not answer.complaints(f"{name}: {what}")
    if not (FILES[name].cached and answer.code == 0):
        changed = before.changed(path.parent) - {"journal.db"}  # SQLite's pages are written whenever it is opened.
        assert not changed, f"{name}: {what} changed {changed}"


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = list(data) if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    return [path] * bool(path) + [one for key in keys for one in places(data[key], (*path, key))]


@pytest.mark.parametrize("name", FILES)
def test_the_file_as_it_is(name, placed):
    """So that the tests below mutate what is read."""
    placed(name)
    answer = called(*FILES[name].words)
    assert (answer.code, answer.error) == (0, None), answer


@pytest.mark.parametrize("name", JSON)
@EXAMPLES
@given(data=st.data())
def test_json_may_hold_anything(name, placed, data):
    """A field of a file is something else, or gone."""
    path = placed(name)
    held = json.loads(path.read_text())
    key = data.draw(st.sampled_from(places(held)))
    inner = held
    for part in key[:-1]:
        inner = inner[part]
    if data.draw(st.booleans()):
        inner[key[-1]] = data.draw(VALUES)
    elif isinstance(inner, dict):
        del inner[key[-1]]
    path.write_text(json.dumps(held))
    check(name, path, f"{key} in {json.dumps(held)[:200]}")


DAMAGED = [b"", b"[" * 100_000, b"{}", b"null", b"\xff\xfe", b'{"format": ' + b"9" * 5000 + b"}", b"PK\x03\x04", b"x"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_may_hold_something_else(name, placed):
    for content in DAMAGED[:: 3 if FILES[name].words in (TUNE, COMPARE) else 1]:  # These take seconds.
        path = placed(name)
        path.write_bytes(content)
        check(name, path, content[:20])


@pytest.mark.parametrize("name", FILES)
@EXAMPLES
@given(seed=st.integers(0, 2**32), cut=st.booleans())
def test_bytes_may_be_others(name, placed, seed, cut):
    path, chance = placed(name), random.Random(seed)
    content = bytearray(path.read_bytes())
    if cut:
        content = content[: chance.randrange(len(content))]
    for _ in range(0 if cut else chance.choice([1, 3, 100])):
        content[chance.randrange(len(content))] = chance.randrange(256)
    path.write_bytes(content)
    check(name, path, f"seed {seed}, cut {cut}")


ARRAYS = [
    np.zeros(0), np.float64(1), np.full((2, 2), np.nan), np.zeros((8, 28, 28, 1), "<U3"), np.zeros((64, 64), complex),
    np.zeros((2, 3), "M8[s]"), np.zeros(64, bool), np.ones((2, 1, 4, 4), np.float32),
    np.full((2, 1, 4, 4), np.inf, "f4"),
    np.array(10.0**300), np.asarray(-(2**63)), np.zeros((0, 4, 4, 1), np.uint8), np.asfortranarray(np.ones((3, 2))),
    np.zeros((2, 4, 4, 1), [("a", "f4")]),
]  # fmt: skip  # noqa: E501
ARCHIVES = [name for name, read in FILES.items() if read.path.endswith((".npz", ".npy")) and name != "journal"]


@pytest.mark.parametrize("name", ARCHIVES)
def test_arrays_may_be_others(name, placed):
    """Of another type, shape or name, and under the names that are looked for."""
    for array in ARRAYS:
        path = placed(name)
        if path.suffix == ".npy":
            np.save(path, array)
            check(name, path, f"{array.dtype} {array.shape}")
            continue
        with np.load(path) as data:
            held = dict(data)
        for key in held:
            np.savez(path, **{**held, key: array})
            check(name, path, f"{key} is {array.dtype} {array.shape}")
            path = placed(name)
            np.savez(path, **{one: value for one, value in held.items() if one != key})
            check(name, path, f"{key} is gone")
            path = placed(name)


def test_a_journal_with_other_arrays_gives_what_the_run_would_have_given(placed):
    """Every entry is of another type or shape, or is another entry: none of it reaches the result."""
    entries = placed("journal").parent.glob("*.npz")
    expected = fs.load_recipe(next(Path().glob(".fewstep-*/out.json"))).plan.to_json()
    for entry, array in zip(sorted(entries), itertools.cycle([*ARRAYS, None])):
        with np.load(entry) as data:
            held = dict(data)
        changed = {**held, "arr_0": held["arr_0"][::-1] if array is None else array}
        np.savez(entry, **changed)
    answer = called(*CALIBRATE)
    assert (answer.code, answer.error) == (0, None), answer
    assert fs.load_recipe("out.json").plan.to_json() == expected


@EXAMPLES
@given(data=st.data())
def test_the_storage_of_tune_may_hold_anything(placed, data):
    """An attribute of a trial, its value or its state is something else, or gone."""
    path = placed("storage")
    what = data.draw(st.sampled_from(["attribute", "key", "value", "state", "gone", "name"]))
    with closing(sqlite3.connect(path)) as base, base:
        keys = [row[0] for row in base.execute("select distinct key from trial_user_attributes")]
        key = data.draw(st.sampled_from(keys))
        value = data.draw(st.one_of(VALUES.map(json.dumps), st.text(max_size=5)))
        change = {
            "attribute": ("update trial_user_attributes set value_json = ? where key = ?", (value, key)),
            "key": ("update trial_user_attributes set key = 'x' || key where key = ?", (key,)),
            "value": ("update trial_values set value = ?", (data.draw(st.one_of(st.none(), st.floats())),)),
            "state": ("update trials set state = ?", (data.draw(st.sampled_from(["RUNNING", "FAIL", "PRUNED", "x"])),)),
            "gone": ("delete from trial_user_attributes where key = ?", (key,)),
            "name": ("update studies set study_name = 'x'", ()),
        }[what]
        base.execute(*change)
    check("storage", path, f"{what} {key} {value}")


def test_a_zip_may_hold_anything(placed):
    path = placed("zip")
    picture = BytesIO()
    Image.new("L", (28, 28)).save(picture, "PNG")
    for members in (
        {}, {"a.txt": b""}, {"a.png": b""}, {"a.png": picture.getvalue()[:40]}, {"../a.png": picture.getvalue()},
        {"a.png/": b""}, {"a.png": picture.getvalue(), "b.png": picture.getvalue()[:-9]}, {"a.gif": b"GIF89a"},
    ):  # fmt: skip
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        check("zip", path, list(members))
        assert not (path.parents[1] / "a.png").exists()

"""Samples that are no images, on the command line: frames of videos and sounds, from folders of real tiny pipelines."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile
from support import text_folder
from support import tiny_transformer_pipelines as newer
from typer.testing import CliRunner

import fewstep as fs
from fewstep.cli.app import app
from fewstep.errors import InputError
from fewstep.metrics.images import image_batches
from fewstep.models.pipelines import load_pipeline, whole_model

CALLS = {
    "wan_22": ["height=16", "width=16", "num_frames=5"],
    "ltx": ["height=32", "width=32", "num_frames=9", "frame_rate=10"],
    "stable_audio": ["audio_end_in_s=1.5"],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: getattr(text_folder, name)(tmp_path_factory.mktemp(name)) for name in CALLS}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def fewstep(*words):
    made = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert made.exit_code == 0, made.output
    return made.output


def words_of(folders, name, *more):
    calls = [word for setting in CALLS[name] for word in ("--call", setting)]
    return ["--model", folders[name], *calls, "--prompt", "a cat", "--steps", 2, "--num", 2, *more]


@pytest.mark.parametrize(("name", "shape", "rate"), [("wan_22", (5, 16, 16), None), ("ltx", (9, 32, 32), 10.0)])
def test_videos(folders, name, shape, rate, tmp_path):
    words = words_of(folders, name)
    assert "2 videos, " in fewstep("sample", *words, "--out", "clips.npz")
    with np.load("clips.npz") as held:
        videos = held["videos"]
        assert videos.dtype == np.uint8 and videos.shape == (2, *shape, 3) and len(np.unique(videos)) > 10
        assert ("rate" in held) == (rate is not None) and (rate is None or held["rate"] == rate)
    fewstep("sample", *words, "--out", "clips.gif")
    with Image.open("clips.gif") as picture:
        assert 1 < picture.n_frames <= shape[0] and min(picture.size) >= 2 * shape[1]
        assert picture.info["duration"] % (100 if rate else 60) == 0
    fewstep("sample", *words, "--out", "clips")
    assert sorted(path.name for path in (tmp_path / "clips").iterdir()) == ["000000.gif", "000001.gif"]
    fewstep("generate", *words, "--out", "many", "--shard-size", 1)
    made = [np.load(path)["videos"] for path in sorted((tmp_path / "many").glob("*.npz"))]
    np.testing.assert_allclose(np.concatenate(made).astype(int), videos.astype(int), atol=1)
    assert "all there already" in fewstep("generate", *words, "--out", "many", "--shard-size", 1)
    fewstep("generate", *words, "--out", "moving", "--format", "gif")
    assert "all there already" in fewstep("generate", *words, "--out", "moving", "--format", "gif")
    for option in (["sample", "--out", "clips.png"], ["generate", "--format", "wav", "--out", "none"]):
        with pytest.raises(InputError, match=r"the model makes videos, whose files are \.gif: write that, or --"):
            fewstep(option[0], *words, *option[1:])
    with pytest.raises(InputError, match="an array named 'images' is needed"):
        list(image_batches(tmp_path / "clips.npz"))


def test_two_experts_and_their_boundary(folders):
    told = fewstep(
        "sample",
        *words_of(folders, "wan_22", "--steps", 4, "--grid", "uniform_time:boundary=experts", "--out", "a.npz"),
    )
    assert "boundary=0.875" in told
    with pytest.raises(InputError, match="has no two experts"):
        fewstep("sample", *words_of(folders, "ltx", "--grid", "uniform_time:boundary=experts", "--out", "b.npz"))


def test_sounds(folders, tmp_path):
    words = words_of(folders, "stable_audio")
    assert "2 audio, " in fewstep("sample", *words, "--out", "sounds.npz")
    with np.load("sounds.npz") as held:
        sounds = held["audio"]
        assert sounds.dtype == np.float32 and sounds.shape == (2, 2, 6) and held["rate"] == 4
    model = load_pipeline(folders["stable_audio"], call={"audio_end_in_s": 1.5})
    assert model.kind == "audio" and model.rate == 4.0
    fewstep("sample", *words, "--out", "sounds")
    rate, read = wavfile.read(tmp_path / "sounds" / "000001.wav")
    assert rate == 4 and read.dtype == np.float32
    np.testing.assert_allclose(read.T, sounds[1], rtol=0, atol=1e-6 * float(np.abs(sounds).max()))
    fewstep("sample", *words[:-2], "--num", 1, "--out", "one.wav")
    np.testing.assert_allclose(wavfile.read("one.wav")[1].T, sounds[0], atol=1e-6 * float(np.abs(sounds).max()))
    for options, answer in (
        (["sample", "--out", "two.wav"], "a file of one sound: write --num 1"),
        (["sample", "--out", "two.png"], r"makes audio, whose files are \.wav"),
    ):
        with pytest.raises(InputError, match=answer):
            fewstep(options[0], *words, *options[1:])
    fewstep("generate", *words, "--format", "wav", "--out", "many")
    assert "all there already" in fewstep("generate", *words, "--format", "wav", "--out", "many")
    (tmp_path / "many" / "00000001.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match="is damaged"):
        fewstep("generate", *words, "--format", "wav", "--out", "many")


def test_sounds_of_audioldm_2(tmp_path):
    """Whose text encoders are too many for a tiny folder: an entry with embeddings."""
    (tmp_path / "tiny_sounds.py").write_text(
        "from support import tiny_transformer_pipelines as newer\n"
        "import fewstep as fs\n"
        "from fewstep.models.pipelines import whole_model\n"
        "def load():\n"
        "    pipe, call = newer.audioldm_2()\n"
        "    return whole_model(fs.models.from_pipeline(pipe, **call))\n"
    )
    try:
        fewstep("sample", "--model", "tiny_sounds:load", "--steps", 2, "--num", 2, "--out", "sounds")
    finally:
        sys.modules.pop("tiny_sounds", None)
    rate, read = wavfile.read(tmp_path / "sounds" / "000000.wav")
    assert rate == 16000 and read.dtype == np.float32 and read.ndim == 1
    pipe, call = newer.audioldm_2()
    model = whole_model(fs.models.from_pipeline(pipe, **call))
    grid = fs.grids.named("optimized:spectrum=latents,floor=0.0045", model.denoiser.process, 2, solver=fs.UniPC(2))
    name, expected = model.kept(model.draw(fs.UniPC(2).plan(grid), [0]))
    assert name == "audio"
    np.testing.assert_allclose(read, expected[0], rtol=0, atol=1e-4 * float(np.abs(expected).max()))

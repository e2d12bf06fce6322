"""The command lines of README.md, docs/ and the help texts run, page by page, with fewer samples than they ask for."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from typer.testing import CliRunner

from fewstep.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
HELP = sorted((ROOT / "src" / "fewstep" / "cli").rglob("*.py"))
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
LAUNCHED = re.compile(r"^accelerate launch .* -m fewstep\.cli(?= )")
SMALL = {
    "calibrate": {"--num": "8", "--steps": "2", "--reference-steps": "8", "--budget": "1"},
    "compare": {"--num": "3", "--steps": "2", "--exact-steps": "4"},
    "generate": {"--num": "8", "--steps": "2"},
    "sample": {"--num": "3"},
    "skip diagnose": {"--num": "3", "--levels": "2", "--inversion-steps": "4"},
    "tune": {"--calls": "2", "--budget": "80", "--pictures": "1"},
    "skip search": {"--num": "3", "--steps": "2", "--points": "2"},
}
"""What takes each command the least time; calibration takes 8 noises or more, and some metrics 6 samples."""


def of_page(text: str) -> list[str]:
    """Return the lines of a page's sh blocks that start fewstep; several processes become one, a GPU the CPU."""
    lines = [LAUNCHED.sub("fewstep", line) for block in BLOCK.findall(text) for line in block.splitlines()]
    return [line.replace(" --device cuda", "") for line in lines if line.startswith("fewstep ")]


def of_help(text: str) -> list[str]:
    """Return the example of a command's help text."""
    return re.findall(r"^    Example: (fewstep .*)$", text, re.MULTILINE)


def fewer(line: str) -> list[str]:
    """Return the words after fewstep, with the least of everything."""
    words = shlex.split(line)[1:]
    command = " ".join(words[: 2 if words[0] == "skip" else 1])
    small = {} if "--list" in words else SMALL.get(command, {})
    asked = [small.get(option, word) for option, word in zip(["", *words], words, strict=False)]
    return asked + [word for option, value in small.items() if option not in words for word in (option, value)]


def commands() -> list:
    found = {path: of_page(path.read_text("utf-8")) for path in PAGES}
    known = {line for lines in found.values() for line in lines}
    found |= {path: [line for line in of_help(path.read_text("utf-8")) if line not in known] for path in HELP}
    return [pytest.param(lines, id=path.relative_to(ROOT).as_posix()) for path, lines in found.items() if lines]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with what the pages take for granted: pictures to compare with, a set of samples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28, 1), np.uint8)
    for name in ("fashion_mnist.npz", "test_images.npz"):
        np.savez(tmp_path / name, images=images, labels=np.arange(30) % 10)
    return tmp_path


@pytest.mark.parametrize("lines", commands())
def test_command_lines_run(lines, folder):
    if any("my-pipeline" in line for line in lines):
        network = UNet2DModel(
            sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, add_attention=False,
            down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        )  # fmt: skip
        DDPMPipeline(network, DDPMScheduler()).save_pretrained(folder / "my-pipeline")
    for line in lines:
        words = fewer(line)
        if words[:2] == ["evaluate", "samples"] and not (folder / "samples").exists():
            (folder / "samples").mkdir()
            (folder / "test_images.npz").rename(folder / "samples" / "a.npz")
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        if "--out" in words:
            assert (folder / words[words.index("--out") + 1]).exists(), line


def test_lines_are_found():
    launched = "accelerate launch --num_processes 2 -m fewstep.cli generate --device cuda"
    page = f"```sh\nmake sample\nfewstep sample --num 99\n{launched}\n```\n"
    assert of_page(page) == ["fewstep sample --num 99", "fewstep generate"]
    assert fewer("fewstep sample --num 99") == ["sample", "--num", "3"]
    assert len(commands()) >= 8

"""``fewstep grid``: the table, the file that loads back, the figure."""

import pytest
from PIL import Image
from typer.testing import CliRunner

import fewstep as fs
from fewstep.cli.app import app


def fewstep(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("process", ["vp-linear", "vp-cosine", "vp-discrete", "edm", "flow:shift=3"])
def test_a_table_of_every_process(process):
    printed = fewstep("grid", "--process", process, "--grid", "optimized", "--steps", 5)
    assert "5 network calls, error bound" in printed and "prox-linear" in printed
    assert len([line for line in printed.splitlines() if line.split()[:1] and line.split()[0].isdigit()]) >= 6


def test_the_file_loads_back_everywhere(tmp_path):
    out = tmp_path / "grid.json"
    fewstep("grid", "--process", "vp-discrete", "--solver", "dpmpp", "--steps", 4, "--out", out)
    grid = fs.TimeGrid.from_json(out.read_text())
    wanted = fs.grids.optimized(fs.processes.VPDiscrete.from_betas(), fs.DPMSolverPP(), 4)
    assert grid == wanted
    assert "4 steps, 4 network calls" in fewstep(
        "sample", "--grid", out, "--steps", 4, "--num", 1, "--out", tmp_path / "x.png"
    )


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_figure_shows_every_grid(tmp_path, suffix):
    plot = tmp_path / f"grid.{suffix}"
    fewstep("grid", "--steps", 5, "--plot", plot)
    if suffix == "svg":
        assert "uniform_logsnr" in plot.read_text() or plot.stat().st_size > 10_000
    else:
        with Image.open(plot) as picture:
            assert min(picture.size) > 200


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--process", "vp-liner"], "did you mean 'vp-linear'"),
        (["--error-power", "-1"], "positive number"),
        (["--end", "never"], "'zero' or 'habit'"),
        (["--out", "grid.txt"], ".json"),
        (["--plot", "grid.pdf"], ".png or .svg"),
        (["--grid", "karas"], "did you mean 'karras'"),
    ],
)
def test_mistakes_are_one_line(words, answer, tmp_path, fails, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert answer in fails("grid", *words)
    assert list(tmp_path.iterdir()) == []

"""``fewstep grid``: the table, the file that loads back, the figure."""

import pytest
from PIL import Image
from typer.testing import CliRunner

import fewstep as fs
from fewstep.cli.app import app
from fewstep.cli.shared.spectra import measured
from fewstep.grids.spectral import SpectralError


def fewstep(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("process", ["vp-linear", "vp-cosine", "vp-discrete", "edm", "flow:shift=3"])
def test_a_table_of_every_process(process):
    printed = fewstep("grid", "--process", process, "--grid", "optimized", "--steps", 5)
    assert "5 network calls, predicted error" in printed and "log-newton" in printed
    assert len([line for line in printed.splitlines() if line.split()[:1] and line.split()[0].isdigit()]) >= 6


@pytest.mark.parametrize(("wanted", "power"), [("error_power=2", 2), ("objective=bound", 1), ("method=prox-linear", 1)])
def test_the_published_bound_is_there_when_asked_for(wanted, power):
    printed = fewstep("grid", "--grid", f"optimized:{wanted}", "--steps", 5)
    assert "5 network calls, error bound" in printed and f"(p = {power})" in printed and "prox-linear" in printed


def test_the_grids_settings_hold_for_what_is_beside_it(tmp_path):
    """The predicted error is on the grid's spectrum, and other grids end where it ends."""
    named, given = tmp_path / "named.json", tmp_path / "given.json"
    printed = fewstep("grid", "--grid", "optimized:spectrum=latents,end=0.2", "--steps", 4, "--out", named)
    assert fs.TimeGrid.load(named).times[-1] == 0.2
    alike = fewstep("grid", "--grid", "optimized:end=0.2", "--spectrum", "latents", "--steps", 4, "--out", given)
    assert named.read_text() == given.read_text()
    assert [line for line in printed.splitlines() if "predicted" in line] == [
        line for line in alike.splitlines() if "predicted" in line
    ]


def test_a_spectrum_is_a_law_a_file_or_a_model(tmp_path):
    made = {name: tmp_path / f"{name}.json" for name in ("law", "file", "model")}
    fs.spectra.named("power:2").save(tmp_path / "own.json")
    fewstep("grid", "--spectrum", "power:2", "--steps", 4, "--out", made["law"])
    fewstep("grid", "--spectrum", tmp_path / "own.json", "--steps", 4, "--out", made["file"])
    printed = fewstep("grid", "--spectrum", "fashion-mnist", "--steps", 4, "--out", made["model"])
    law, file, model = (fs.TimeGrid.load(path) for path in made.values())
    assert law == file == fs.grids.optimized(fs.processes.VPLinear(), fs.UniPC(2), 4, spectrum="power:2")
    varies = measured(fs.zoo.model("fashion-mnist")).total ** 0.5
    assert model.process == fs.processes.VPDiscrete.from_betas() and f"the data vary by {varies:.3g})" in printed


def test_a_spectrum_of_another_models_samples_is_refused(tmp_path, fails):
    fs.spectra.Spectrum.power_law(2, (3, 16, 16)).save(tmp_path / "other.json")
    words = ["--grid", f"optimized:spectrum={tmp_path / 'other.json'}", "--num", 1, "--out", tmp_path / "x.png"]
    assert "the model's have (1, 32, 32)" in fails("sample", *map(str, words))


def test_all_solvers_on_all_grids_are_compared():
    printed = fewstep("grid", "--process", "vp-discrete", "--steps", 6, "--spectrum", "latents", "--compare")
    assert "likely error in 6 calls" in printed
    rows = [line.split() for line in printed.splitlines() if line.strip().startswith("DDIM")]
    solver, spectrum = fs.DDIM(), fs.spectra.named("latents")
    process = fs.processes.VPDiscrete.from_betas()
    grid = fs.grids.optimized(process, solver, 6, spectrum=spectrum)
    likely = SpectralError(process, solver, spectrum).likely(grid.times[None])
    assert min(rows[0][1:]) == f"{float(likely[0]):.4f}"
    assert len(rows) == 2 and len(rows[0]) == 1 + len(fs.grids.NAMES)


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
        (["--grid", "optimized:error_power=-1"], "positive number"),
        (["--grid", "optimized:error_power=1", "--spectrum", "pixels"], "leave one out"),
        (["--grid", "optimized:spectrum=latents", "--spectrum", "pixels"], "leave one out"),
        (["--spectrum", "pixel"], "write latents, pixels"),
        (["--spectrum", "nowhere.json"], "cannot be read"),
        (["--spectrum", "power:steep"], "is not a setting"),
        (["--grid", "karras:end=never"], "end is 'never'"),
        (["--out", "grid.txt"], ".json"),
        (["--plot", "grid.pdf"], ".png or .svg"),
        (["--grid", "karas"], "did you mean 'karras'"),
    ],
)
def test_mistakes_are_one_line(words, answer, tmp_path, fails, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert answer in fails("grid", *words)
    assert list(tmp_path.iterdir()) == []

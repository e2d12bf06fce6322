"""``fewstep compare``: the numbers of the library in a table, gone on with after a stop."""

import csv
import json
import shlex
import sys

import numpy as np
import pytest
import torch
from support import killing, two_processes
from support.compared import CALLS, coloured, smooth
from typer.testing import CliRunner

import fewstep as fs
from fewstep.cli.app import app, run
from fewstep.cli.compare import bench
from fewstep.cli.compare.bench import _share
from fewstep.cli.compare.cells import Cell, planned_cells
from fewstep.cli.compare.command import _count_evaluations, split_specs
from fewstep.cli.shared.progress import bar
from fewstep.cli.shared.workers import Workers
from fewstep.errors import InputError
from fewstep.metrics import features, frechet_distance, from_uint8, reference
from fewstep.metrics.pixels import to_uint8
from fewstep.recommended import recommended

SMALL = ["compare", "--model", "support.compared:smooth", "--num", 12, "--batch-size", 5, "--exact-steps", 40]
SMALL += ["--features", "fashion-mnist"]


def fewstep(*words) -> None:
    done = CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def compare(out, *words) -> dict:
    fewstep(*SMALL, "--out", out, *words)
    return json.loads((out / "table.json").read_text())


def test_the_table_holds_what_the_library_measures(tmp_path):
    words = ["--solvers", "ddim,unipc:order=2,variant=bh1,ddim:eta=1.0", "--grids", "karras", "--steps", "4,8"]
    table = compare(tmp_path / "t", *words)
    rows = {(row["solver"], row["steps"]): row for row in table["rows"]}
    assert list(rows) == [(s, n) for s in ("ddim", "unipc:order=2,variant=bh1", "ddim:eta=1.0") for n in (4, 8)]
    model, seeds, labels = smooth(), range(12), [seed % 2 for seed in range(12)]
    exact = fs.sample(model, fs.UniPC(), fs.grids.uniform_logsnr(model.process, 40), seeds=seeds, cond=labels)
    made = fs.sample(model, fs.DDIM(), fs.grids.karras(model.process, 4), seeds=seeds, cond=labels)
    row = rows["ddim", 4]
    assert row["error"] == pytest.approx(float((made - exact).square().mean().sqrt()), rel=1e-4)
    assert row["error_low"] < row["error"] < row["error_high"]
    distance = frechet_distance(features("fashion-mnist")(from_uint8(to_uint8(made))), reference())
    assert row["fd"] == pytest.approx(distance, rel=1e-3)
    assert rows["ddim", 8]["error"] < row["error"] and rows["unipc:order=2,variant=bh1", 8]["error"] < row["error"]
    assert "error" not in rows["ddim:eta=1.0", 4] and "fd" in rows["ddim:eta=1.0", 4]
    with (tmp_path / "t" / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["fd"]) for line in lines] == [row["fd"] for row in table["rows"]]


def test_the_reference_solution_is_the_odes(tmp_path):
    """Of Gaussian data it is known: x_0 = m + (x_T − α_T·m)·s/(s²·α_T² + σ_T²)^{1/2}."""
    words = ["--solvers", "ddim", "--grids", "karras", "--steps", "2", "--metrics", "error", "--exact-steps", 100]
    compare(tmp_path / "t", *words)
    process = smooth().process
    grid = fs.grids.uniform_logsnr(process, 100)
    noise = fs.initial_state(grid, (1, 28, 28), range(12)).double()
    alpha, sigma = grid.alpha[0], grid.sigma[0]
    mean = torch.tensor([seed % 2 - 0.5 for seed in range(12)], dtype=torch.float64).view(-1, 1, 1, 1)
    expected = mean + (noise - alpha * mean) * 0.2 / (0.04 * alpha**2 + sigma**2).sqrt()
    found = torch.from_numpy(np.load(tmp_path / "t" / "exact.npy"))
    assert torch.allclose(found.double(), expected, atol=3e-3)  # the last step, from t_min, is of first order


def test_the_distance_to_the_models_solution_from_other_seeds(tmp_path):
    words = ["--solvers", "ddim,ddim:eta=1.0", "--grids", "karras", "--steps", "4", "--metrics", "fd_solution"]
    rows = compare(tmp_path / "t", *words)["rows"]
    model, others = smooth(), range(12, 24)
    grid, solution = fs.grids.karras(model.process, 4), fs.grids.uniform_logsnr(model.process, 40)
    exact = fs.sample(model, fs.UniPC(), solution, seeds=others, cond=[seed % 2 for seed in others])
    moments = fs.metrics.moments_of([features("fashion-mnist")(from_uint8(to_uint8(exact)))], "")
    for row, solver in zip(rows, (fs.DDIM(), fs.DDIM(eta=1.0)), strict=True):
        made = fs.sample(model, solver, grid, seeds=range(12), cond=[seed % 2 for seed in range(12)])
        distance = frechet_distance(features("fashion-mnist")(from_uint8(to_uint8(made))), moments)
        assert row["fd_solution"] == pytest.approx(distance, rel=1e-3)
        assert "fd" not in row and "error" not in row
    CALLS.clear()
    compare(tmp_path / "t", *words)
    assert not CALLS


def test_what_was_measured_is_not_measured_again(tmp_path):
    words = ["--solvers", "ddim,unipc", "--grids", "karras,uniform_logsnr", "--steps", "3"]
    table = compare(tmp_path / "t", *words)
    cells = sorted((tmp_path / "t").glob("cell-*.json"))
    assert len(cells) == 4
    CALLS.clear()
    assert compare(tmp_path / "t", *words) == table and not CALLS
    cells[0].unlink()
    assert compare(tmp_path / "t", *words) == table and sum(CALLS) == 3 * 12
    assert len(compare(tmp_path / "t", *words[:-1], "3,4")["rows"]) == 8
    page = (tmp_path / "t" / "report.html").read_bytes()
    (tmp_path / "t" / "exact.npy").unlink()
    compare(tmp_path / "t", *words[:-1], "3,4")
    assert (tmp_path / "t" / "report.html").read_bytes() == page  # with the reference solution's images


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--solvers", "unicp"], "did you mean 'unipc'"),
        (["--solvers", "ddim,ddim"], "each once"),
        (["--grids", "karas"], "did you mean 'karras'"),
        (["--steps", "5,zero"], "whole numbers"),
        (["--metrics", "error,fid"], "unknown metric 'fid'"),
        (["--num", 0], "at least 1"),
        (["--solvers", ""], "nothing to compare"),
        (["--peers", "unipcc"], "did you mean 'unipc'"),
        (["--dtype", "bfloat16"], "sets its type itself"),
        (["--dtype", "bf16"], "unknown dtype 'bf16'"),
        (["--reference", "missing.npz"], "does not exist"),
        (["--features", "torchscript:missing.pt"], "cannot be read"),
        (["--model", "support.compared:spoilt", "--solvers", "", "--peers", "unipc"], "not finite"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(words, answer, tmp_path, fails):
    assert answer in fails(*SMALL, "--out", tmp_path / "t", *words)
    assert not list(tmp_path.glob("t/cell-*"))


@pytest.mark.filterwarnings("ignore:there are 12 samples")
def test_cells_that_are_not_finite_are_named_and_the_others_kept(tmp_path, fails):
    words = ["--grids", "uniform_time:end=0", "--metrics", "fd", "--solvers", "ddim,unipc", "--out", tmp_path / "t"]
    words = [*SMALL, "--model", "support.compared:spoilt", *words]
    printed = fails(*words, "--steps", "8,2")
    assert "2 of 4 cells" in printed and "unipc on uniform_time:end=0, 8 steps" in printed and "2 steps" not in printed
    assert len(list(tmp_path.glob("t/cell-*.json"))) == 2
    CALLS.clear()
    fewstep(*words, "--steps", "2")
    assert not CALLS and (tmp_path / "t" / "report.html").is_file()


def test_features_that_the_images_do_not_fit_are_refused_before_a_call(tmp_path, fails):
    CALLS.clear()
    words = [*SMALL, "--model", "support.compared:coloured", "--out", tmp_path / "t"]
    assert "grey images" in fails(*words)
    assert "at least 2 images" in fails(*SMALL, "--num", 1, "--out", tmp_path / "t")
    assert not CALLS and not (tmp_path / "t").exists()


def test_features_that_the_reference_has_not_are_refused_before_a_call(tmp_path, fails):
    torch.jit.save(torch.jit.script(torch.nn.Flatten()), tmp_path / "flat.pt")
    words = [*SMALL, "--features", f"torchscript:{tmp_path / 'flat.pt'}", "--out", tmp_path / "t"]
    CALLS.clear()
    assert "statistics of the same features" in fails(*words)
    assert not CALLS and not (tmp_path / "t").exists()


def test_two_references_are_not_mixed(tmp_path, fails, monkeypatch):
    reference = tmp_path / "data.npz"
    images = np.random.default_rng(0).integers(0, 255, (20, 28, 28, 1), np.uint8)
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    words = ["--grids", "karras", "--steps", "2", "--metrics", "fd", "--reference", reference]
    np.savez(reference, images=images)
    compare(tmp_path / "t", *words, "--solvers", "ddim")
    np.savez(reference, images=images // 2)
    words += ["--solvers", "ddim,unipc", "--out", tmp_path / "t"]
    assert "reference_hash was" in fails(*SMALL, *words)


def test_other_settings_are_refused(tmp_path, fails):
    words = ["--solvers", "ddim", "--grids", "karras", "--steps", "2", "--metrics", "error"]
    compare(tmp_path / "t", *words)
    printed = fails(*SMALL, "--out", tmp_path / "t", *words, "--num", 13)
    assert "seeds was '0-11' and is '0-12' now" in printed


def test_specs_are_split_at_names():
    assert split_specs("--solvers", "unipc:order=2,variant=bh1, ddim,sa:tau=0.5") == [
        "unipc:order=2,variant=bh1",
        "ddim",
        "sa:tau=0.5",
    ]
    with pytest.raises(InputError, match="give names"):
        split_specs("--solvers", ",")


def test_the_command_of_a_cell_gives_its_images(tmp_path, monkeypatch):
    """Each row's command, run as it stands in another folder, draws the very images that were measured."""
    words = ["--solvers", "sa:tau=0.5", "--grids", "karras", "--steps", "3", "--peers", "sa", "--metrics", "fd"]
    table = compare(tmp_path / "t", *words)
    for row in table["rows"]:
        folder = tmp_path / row["solver"].partition(":")[0]
        folder.mkdir()
        monkeypatch.chdir(folder)
        command = shlex.split(row["command"])
        assert command[0] == "fewstep"
        done = CliRunner().invoke(app, command[1:], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        shard = next((folder / row["cell"]).glob("*.npz"))
        with np.load(tmp_path / "t" / f"{row['cell']}.npz") as first, np.load(shard) as drawn:
            assert first["images"].shape == (8, 28, 28, 1)
            assert np.array_equal(first["images"], drawn["images"][:8])
            assert first["seeds"].tolist() == drawn["seeds"][:8].tolist() == list(range(8))


def test_the_report_is_made_anew_from_what_was_kept(tmp_path):
    words = ["--solvers", "ddim,unipc", "--grids", "karras", "--steps", "2", "--peers", "unipc"]
    compare(tmp_path / "t", *words)
    page = (tmp_path / "t" / "report.html").read_bytes()
    (tmp_path / "t" / "report.html").unlink()
    (tmp_path / "t" / "table.csv").unlink()
    CALLS.clear()
    compare(tmp_path / "t", *words)
    assert not CALLS and (tmp_path / "t" / "report.html").read_bytes() == page
    (tmp_path / "t" / "report.html").unlink()
    next((tmp_path / "t").glob("cell-*.npz")).unlink()
    compare(tmp_path / "t", *words)
    assert sum(CALLS) == 2 * 12 and (tmp_path / "t" / "report.html").read_bytes() == page


def test_a_model_that_is_led_by_prompts(tmp_path, monkeypatch):
    words = ["--solvers", "ddim", "--grids", "karras", "--steps", "2", "--peers", "dpmpp2", "--metrics", "error"]
    (tmp_path / "prompts").write_text("a cat\n<b>a dog</b>\n", "utf-8")
    table = compare(tmp_path / "t", *words, "--model", "support.compared:led", "--prompts", tmp_path / "prompts")
    classes = compare(tmp_path / "c", *words)
    assert table["settings"]["prompts"] == ["a cat", "<b>a dog</b>"]
    assert [row["error"] for row in table["rows"]] == [row["error"] for row in classes["rows"]]
    assert "&lt;b&gt;a dog" in (tmp_path / "t" / "report.html").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, shlex.split(table["rows"][0]["command"])[1:], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    name = table["rows"][0]["cell"]
    with np.load(tmp_path / name / "samples-00000.npz") as drawn:
        with np.load(tmp_path / "t" / f"{name}.npz") as kept:
            assert np.array_equal(drawn["images"][:8], kept["images"])
    monkeypatch.setattr(
        sys,
        "argv",
        ["fewstep", *map(str, [*SMALL, *words, "--model", "support.compared:led", "--out", tmp_path / "n"])],
    )
    with pytest.raises(SystemExit):
        run()


def test_half_precision_is_another_network(tmp_path):
    words = ["compare", "--solvers", "unipc", "--grids", "karras", "--steps", "2", "--num", "2", "--exact-steps", "2"]
    for dtype in ("float32", "bfloat16"):
        done = CliRunner().invoke(app, [*words, "--dtype", dtype, "--out", str(tmp_path / dtype)])
        assert done.exit_code == 0, done.output
    single, half = (json.loads((tmp_path / d / "table.json").read_text()) for d in ("float32", "bfloat16"))
    assert half["settings"]["dtype"] == "bfloat16"
    assert half["settings"]["model_hash"] != single["settings"]["model_hash"]
    assert single["rows"][0]["fd"] != half["rows"][0]["fd"] == pytest.approx(single["rows"][0]["fd"], rel=0.05)
    exact = np.load(tmp_path / "bfloat16" / "exact.npy")
    assert exact.dtype == np.float32 and not np.array_equal(exact, torch.from_numpy(exact).bfloat16().float().numpy())


def test_progress_counts_every_call_of_what_is_measured(tmp_path, monkeypatch):
    bars = []
    monkeypatch.setattr(bench, "bar", lambda **words: bars.append(bar(**words)) or bars[-1])
    words = ["--solvers", "ddim,unipc,unipc:order=3,ddim:eta=1.0,heun", "--grids", "karras", "--steps", "3", "--peers"]
    compare(tmp_path / "t", *words, "unipc,sa")
    (task,) = bars[-1].tasks
    assert task.completed == task.total == 12 * (3 + 3 + 3 + 5 + 3 + 3 + 40)  # unipc's cell once, the solution's 40
    compare(tmp_path / "t", *words, "dpmpp2,sa")
    (task,) = bars[-1].tasks
    assert task.completed == task.total == 12 * 3


@pytest.mark.parametrize("event", ["os.rename", "os.remove"])
def test_a_kill_at_any_step_of_writing_loses_nothing(event, tmp_path, one_thread):
    words = ["--solvers", "ddim,sa:tau=0.5", "--grids", "karras", "--steps", "3", "--metrics", "error"]
    words += ["--exact-steps", "3"]
    compare(tmp_path / "whole", *words)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    errors = [row["error"] for row in json.loads(whole["table.json"])["rows"] if "error" in row]
    moments = 0
    command = [*map(str, SMALL), *words, "--out"]
    while killing.killed_at([*command, str(tmp_path / f"a{moments}")], tmp_path, event, moments + 1):
        found = compare(tmp_path / f"a{moments}", *words)
        assert [row["error"] for row in found["rows"] if "error" in row] == errors
        names = {path.name: path.read_bytes() for path in (tmp_path / f"a{moments}").iterdir()}
        assert names.keys() == whole.keys() and names["exact.npy"] == whole["exact.npy"]
        moments += 1
    assert moments >= 3


def test_the_reference_solution_goes_on_where_it_stopped(tmp_path, one_thread):
    words = ["--solvers", "ddim", "--grids", "karras", "--steps", "3", "--metrics", "error"]
    whole = compare(tmp_path / "whole", *words)
    assert killing.killed_at(
        [*map(str, SMALL), *words, "--out", str(tmp_path / "a")], tmp_path / "a", "os.rename", 3
    )  # manifest and one batch are there
    assert [path.name for path in (tmp_path / "a").glob("exact*")] == ["exact-00000000.npy"]
    CALLS.clear()
    assert compare(tmp_path / "a", *words)["rows"][0]["error"] == whole["rows"][0]["error"]
    assert sum(CALLS) == 40 * (12 - 5) + (3 - 1) * 12 + 5  # the first call of the cell, where the solution made it
    assert (tmp_path / "a" / "exact.npy").read_bytes() == (tmp_path / "whole" / "exact.npy").read_bytes()


def test_batches_of_the_solution_that_another_size_made_are_made_again(tmp_path):
    words = ["--solvers", "ddim", "--grids", "karras", "--steps", "3", "--metrics", "error"]
    whole = compare(tmp_path / "whole", *words, "--batch-size", 4)
    killing.killed_at([*map(str, SMALL), *words, "--out", str(tmp_path / "a")], tmp_path / "a", "os.rename", 4)
    assert len(list((tmp_path / "a").glob("exact-*"))) == 2
    found = compare(tmp_path / "a", *words, "--batch-size", 4)
    assert found["rows"][0]["error"] == pytest.approx(whole["rows"][0]["error"], rel=1e-5)
    assert [path.name for path in (tmp_path / "a").glob("exact*")] == ["exact.npy"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"nfe": 3}', '{"nfe": 3, "batch_size": 4, "versions": {}}'])
def test_a_damaged_cell_is_measured_anew(text, tmp_path):
    words = ["--solvers", "ddim", "--grids", "karras", "--steps", "3", "--metrics", "error"]
    whole = compare(tmp_path / "a", *words)
    (cell,) = (tmp_path / "a").glob("cell-*.json")
    cell.write_text(text)
    assert compare(tmp_path / "a", *words)["rows"] == whole["rows"]


def test_nothing_is_said_of_an_error_that_was_not_measured(tmp_path):
    """A solver that adds noise has none."""
    words = ["compare", "--solvers", "sa:tau=1", "--grids", "karras", "--num", 2, "--steps", "2", "--exact-steps", 4]
    done = CliRunner().invoke(app, [*map(str, words), "--out", str(tmp_path / "t")], catch_exceptions=False)
    assert done.exit_code == 0 and "1 cells" in done.output and "error of" not in done.output


def test_an_unknown_peer_is_refused_before_a_model_is_loaded(tmp_path, fails):
    printed = fails("compare", "--model", "nothing:here", "--peers", "unipcc", "--out", tmp_path / "t")
    assert "unknown peer 'unipcc': did you mean 'unipc'" in printed


def test_an_rgb_model_is_measured_by_its_error(tmp_path):
    """No features are known for it: the defaults measure what can be measured, and say what is left out."""
    words = ["compare", "--model", "support.compared:coloured", "--num", 2, "--steps", "2", "--exact-steps", 4]
    done = CliRunner().invoke(app, [*map(str, words), "--out", str(tmp_path / "t")], catch_exceptions=False)
    assert done.exit_code == 0 and "fd was not measured" in done.output and "docs/measure.md" in done.output
    assert "error of 2 noises is of few" in done.output and " fd " not in done.output.splitlines()[0]
    rows = json.loads((tmp_path / "t" / "table.json").read_text())["rows"]
    rule = recommended(coloured().process, 2)
    assert (rule.solver, rule.grid) in [(row["solver"], row["grid"]) for row in rows]
    assert {"karras", "uniform_logsnr"} < {row["grid"] for row in rows} and all("fd" not in row for row in rows)
    assert (tmp_path / "t" / "table.csv").read_text().splitlines()[0].split(",") == [
        "solver",
        "grid",
        "steps",
        "nfe",
        "error",
        "error_low",
        "error_high",
        "command",
    ]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--grids", "karas"], "did you mean 'karras'"),
        (["--solvers", "unicp"], "did you mean 'unipc'"),
        (["--grids", "grid.json"], "has 3 steps, not 2"),
        (["--metrics", "fd", "--features", "none"], "give --features torchscript:FILE"),
    ],
)
def test_mistakes_are_found_before_the_model_is_loaded(words, answer, tmp_path, fails, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.json").write_text(fs.grids.karras(smooth().process, 3).to_json())
    words = ["compare", "--model", "there:is_none", "--steps", "2", *words]
    assert answer in fails(*words, "--out", tmp_path / "t")


def test_two_processes_measure_what_one_does(tmp_path, one_thread):
    """The solution and the cells are shared out; what is kept is the same to the bit, and nothing is left over."""
    words = [
        *map(str, SMALL),
        "--exact-steps",
        "6",
        "--solvers",
        "ddim,unipc,sa:tau=0.5",
        "--grids",
        "karras,uniform_time",
    ]
    words += ["--steps", "3", "--peers", "unipc", "--out"]
    assert two_processes.run([*words, "two"], tmp_path).count("7 cells in 2 processes") == 1
    fewstep(*words, tmp_path / "one")
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / n).iterdir()} for n in ("one", "two"))
    assert one.keys() == two.keys() and len([name for name in one if name.startswith("cell-")]) == 14
    kept = [name for name in one if name.endswith((".npz", ".npy")) or name.startswith("cell-")]
    assert all(one[name] == two[name] for name in kept)


def test_cells_are_shared_out_by_their_calls():
    class Sampler:
        def __init__(self, nfe):
            self.nfe = nfe

    cells = [Cell("", "", nfe, Sampler(nfe), ()) for nfe in (5, 5, 5, 20, 20, 5, 40)]
    for count in (1, 2, 3, 9):
        parts = [_share(cells, Workers(index, count)) for index in range(count)]
        assert sum(parts, []) == cells  # neighbours, each once
        assert max(sum(cell.steps for cell in part) for part in parts) <= 100 / count + 40


def test_evaluations_under_guidance_are_counted():
    model = fs.zoo.model("fashion-mnist").guided("3:interval=0.2:2")
    cells = planned_cells(model.denoiser, ["ddim"], ["karras"], [4, 8])
    rows = [{"nfe": 4}, {"nfe": 8}]
    _count_evaluations(rows, cells, model, False)
    assert rows == [{"nfe": 4}, {"nfe": 8}]  # Without a condition there is nothing to guide.
    _count_evaluations(rows, cells, model, True)
    for row, cell in zip(rows, cells, strict=True):
        ratio = torch.tensor(cell.sampler.levels)[:-1]
        assert row["evaluations"] == row["nfe"] + int(((ratio > 0.2) & (ratio <= 2.0)).sum())
        assert row["nfe"] < row["evaluations"] < 2 * row["nfe"]

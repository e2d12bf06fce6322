"""``fewstep reproduce``: every table of the package on a small network of its class, stopped, spoiled and resumed."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from support import killing, reproducing, two_processes
from support.generating import fewstep

from fewstep import reproduction

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:there are . samples"),
]
FIRST = "sa-solver-cifar10"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, one_thread):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    return tmp_path


def short(table: dict, rows: int = 2) -> None:
    """Keep the first rows of a table, each of few steps."""
    table["rows"] = table["rows"][:rows]
    reproducing.write(Path(), table)


def results(out: str = "out") -> dict:
    return json.loads(Path(out, "results.json").read_text())


@pytest.mark.parametrize("name", reproduction.NAMES)
def test_every_table_runs_on_a_small_network_of_its_class(name, folder):
    table = reproducing.small(name, folder)
    kinds = {(row["solver"], row["grid"], row["skip"] is None): row for row in reversed(table["rows"])}
    rows = [row for row in kinds.values() if row["calls"] <= 20]
    reproducing.write(Path(), {**table, "rows": rows})
    printed = fewstep(*reproducing.words())
    made = results()
    assert [row["name"] for row in made["rows"]] == [row["name"] for row in rows]
    for row in made["rows"]:
        assert np.isfinite(row["fd"]) and row["images"] == reproducing.COUNT and row["name"] in printed
        assert row["difference"] == (None if row["paper"] is None else pytest.approx(row["fd"] - row["paper"]))
    assert made["weights"].keys() >= {Path(file["name"]).name for file in table["files"]}
    assert f"of {reproducing.COUNT} images, where the paper has 50000" in printed
    assert len({row["fd"] for row in made["rows"]}) > 1 or len(rows) == 1
    assert Path("out", "results.md").read_text().count("\n|") == 2 + len(rows)


def test_the_tables_are_listed_and_say_what_they_need():
    listed = fewstep("reproduce", "--list")
    assert all(name in listed for name in reproduction.NAMES)
    for name in reproduction.NAMES:
        table, printed = reproduction.named(name), fewstep("reproduce", name)
        for file in (*table.files, table.reference):
            assert file.name in printed and file.url in printed
        assert all(row.name in printed for row in table.rows) and "--inception" in printed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process cannot be copied here")
def test_a_killed_run_goes_on_to_the_same_result(folder):
    short(reproducing.small(FIRST, folder))
    whole = fewstep(*reproducing.words(out="whole"))
    for event, count in (("batch", 1), ("batch", 2), ("os.rename", 1), ("os.rename", 2)):
        assert killing.killed_at(reproducing.words(), Path("out"), event, count)
        assert not Path("out", "results.json").exists()
    resumed = fewstep(*reproducing.words())
    assert Path("out", "results.json").read_text() == Path("whole", "results.json").read_text()
    assert resumed.partition("SA-Solver")[2].replace("out", "whole") == whole.partition("SA-Solver")[2]
    again = fewstep(*reproducing.words())
    assert "images/s" not in again and results() == results("whole")


def test_two_processes_measure_what_one_does(folder):
    short(reproducing.small(FIRST, folder), 1)
    fewstep(*reproducing.words(out="one"))
    two_processes.run(reproducing.words(out="two"), folder)
    assert results("one")["rows"] == results("two")["rows"]


def spoil_weights(table: dict) -> None:
    path = Path("weights", table["files"][0]["name"])
    path.write_bytes(path.read_bytes() + b"more")


def remove_weights(table: dict) -> None:
    Path("weights", table["files"][0]["name"]).unlink()


def other_resolution(table: dict) -> None:
    Path("weights", table["reference"]["name"]).rename("weights/small-64x64.npz")


def images_of_another_size(table: dict) -> None:
    np.savez("images.npz", images=np.zeros((4, 8, 8, 3), np.uint8))


def other_dimensions(table: dict) -> None:
    np.savez("weights/moments.npz", mu=np.zeros(7), sigma=np.eye(7))


def other_calls(table: dict) -> None:
    table["rows"][0]["calls"] += 1
    reproducing.write(Path(), table)


def other_network(table: dict) -> None:
    table["resolution"] = 32
    reproducing.write(Path(), table)


@pytest.mark.parametrize(
    ("spoil", "words", "answer"),
    [
        (remove_weights, [], "1 of 3 files are missing: download 'weights/edm-cifar10-32x32-uncond-vp.pkl' from https"),
        (spoil_weights, [], "is not the published file: its SHA-256 is"),
        (other_resolution, ["--reference", "weights/small-64x64.npz"], "is of 64×64 pixels, the samples of 16×16"),
        (images_of_another_size, ["--reference", "images.npz"], "is of 8×8 pixels, the samples of 16×16"),
        (other_dimensions, ["--reference", "weights/moments.npz"], "has 7 dimensions, the features"),
        (other_calls, [], "network calls, and says"),
        (None, ["--rows", "12-calls"], "unknown row '12-calls'"),
        (None, ["--inception", "torchscript:no.pt"], "are missing: download 'no.pt'"),
        (None, ["--num", "1"], "at least 2"),
        (None, ["--device", "cdua"], "write cpu, or cuda on a GPU"),
    ],
)
def test_mistakes_are_one_sentence_before_anything_is_sampled(spoil, words, answer, folder, fails):
    table = reproducing.small(FIRST, folder)
    if spoil:
        spoil(table)
    assert answer in fails(*reproducing.words(*words))
    assert not Path("out").exists()


def test_statistics_count_where_there_are_images_too(folder):
    """As in the references of guided-diffusion."""
    table = reproducing.small(FIRST, folder)
    short(table, 1)
    fewstep(*reproducing.words())
    with np.load(Path("weights", table["reference"]["name"])) as data:
        images = np.zeros((4, reproducing.RESOLUTION, reproducing.RESOLUTION, 3), np.uint8)
        np.savez("both.npz", arr_0=images, **data)
    fewstep(*reproducing.words("--reference", "both.npz", out="both"))
    assert results()["rows"] == results("both")["rows"]


def test_what_is_left_out_is_named(folder, fails):
    reproducing.small(FIRST, folder)
    given = ["reproduce", "table.json", "--weights", "weights"]
    assert "--inception is missing" in fails(*given)
    assert "--out is missing" in fails(*given, "--inception", "torchscript:rows.pt")
    without = [word for word in reproducing.words() if word != "--trust-pickle"]
    assert "add --trust-pickle" in fails(*without)
    assert "which table?" in fails("reproduce")
    assert "unknown table 'sa-solver'" in fails("reproduce", "sa-solver")


def test_other_settings_are_refused_in_the_same_folder(folder, fails):
    table = reproducing.small(FIRST, folder)
    short(table, 1)
    fewstep(*reproducing.words())
    assert "samples was 8 and is 9 now" in fails(*reproducing.words("--num", 9))
    table["rows"][0]["paper"] = 2.0
    reproducing.write(Path(), table)
    assert "made with other settings" in fails(*reproducing.words())


def test_rows_may_be_added_later(folder):
    short(reproducing.small(FIRST, folder))
    fewstep(*reproducing.words("--rows", "11-calls"))
    assert [row["name"] for row in results()["rows"]] == ["11-calls"]
    printed = fewstep(*reproducing.words())
    assert [row["name"] for row in results()["rows"]] == ["11-calls", "15-calls"]
    assert printed.count("images/s") == 1


def test_a_skip_profile_changes_its_row_alone(folder):
    table = reproducing.small(FIRST, folder)
    row = table["rows"][0]
    table["rows"] = [row, {**row, "name": "tuned", "skip": "0.6"}, {**row, "name": "again"}]
    reproducing.write(Path(), table)
    fewstep(*reproducing.words())
    plain, tuned, again = (one["fd"] for one in results()["rows"])
    assert plain == again != tuned

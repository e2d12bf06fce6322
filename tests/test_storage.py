"""Files from outside are answered with a sentence that names the field, and files are written whole or not at all."""

from __future__ import annotations

import json
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fewstep as fs
from fewstep import storage
from fewstep.errors import InputError

GRID = fs.grids.karras(fs.processes.VPLinear(), 3, end="zero")
PLAN = fs.UniPC(2).plan(GRID)
RECIPE = fs.Recipe(PLAN, model={"network": "Net", "fingerprint": "", "prediction": "x0", "guidance_scale": 1.0})
PROFILE = fs.skip.Profile(bottom=0.7, sigma_window=(0.1, 5.0), ramp=0.5, origin={"metric": "fd"})
KEPT = [GRID, PLAN, RECIPE, PROFILE]
BAD = [None, "1", "x", True, [], {}, [[]], -1, 10**400, 1e999, float("nan"), "a" * 10_000, [None], [1, "2"]]


def kind(kept):
    return type(kept).__name__


@pytest.mark.parametrize("kept", KEPT, ids=kind)
def test_what_is_saved_is_loaded(kept, tmp_path):
    kept.save(tmp_path / "kept.json")
    back = type(kept).load(tmp_path / "kept.json")
    assert back.to_json() == kept.to_json()
    assert [path.name for path in tmp_path.iterdir()] == ["kept.json"]


def test_a_batch_of_grids_is_kept():
    batch = fs.TimeGrid(GRID.process, torch.stack([GRID.times, GRID.times]))
    assert fs.TimeGrid.from_json(batch.to_json()) == batch


@pytest.mark.parametrize("kept", KEPT, ids=kind)
@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"format": ' + "9" * 5_000 + "}", "cannot be read as JSON"),
        ("null", "NoneType"),
        ("[1]", "'list'"),
        ("{}", "holds no format: it is another file"),
        ('{"format": "fewstep-other/1"}', "the format is 'fewstep-other/1'"),
        ('{"format": ["x"]}', "the format is"),
        ("\ud800", "cannot be read|damaged"),
    ],
)
def test_text_that_is_nothing_of_the_kind(kept, text, answer):
    with pytest.raises(InputError, match=answer):
        type(kept).from_json(text)


def mutations(data, place=()):
    """Yield (place, data with something else there) for every field."""
    for bad in (*BAD, ...):
        copy = json.loads(json.dumps(data))
        inner = copy
        for key in place[:-1]:
            inner = inner[key]
        if not place:
            continue
        if bad is ...:
            del inner[place[-1]]
        else:
            inner[place[-1]] = bad
        yield place, copy
    held = data
    for key in place:
        held = held[key]
    keys = list(held) if isinstance(held, dict) else range(len(held)) if isinstance(held, list) else ()
    for key in keys:
        yield from mutations(data, (*place, key))


@pytest.mark.parametrize("kept", KEPT, ids=kind)
def test_every_field_may_hold_anything(kept):
    for place, data in mutations(json.loads(kept.to_json())):
        try:
            back = type(kept).from_json(json.dumps(data))
        except InputError as error:
            assert "\n" not in str(error).strip() and len(str(error)) <= 1000, place
        else:
            back.to_json()


@pytest.mark.parametrize(
    ("break_it", "answer"),
    [
        (lambda d: d["rows"][1].update(state_weight="1.0"), r"rows\[1\].state_weight is '1.0', and should be a valid"),
        (lambda d: d["rows"][0].update(history_weights=None), r"rows\[0\].history_weights is None"),
        (lambda d: d["rows"][2].pop("noise_scale"), r"rows\[2\].noise_scale is missing"),
        (lambda d: d.update(times=[1.0, float("nan")]), r"times\[1\] is no finite number"),
        (lambda d: d["process"].update(name=3), "a process is described as"),
        (lambda d: d["rows"][0].update(history_weights=[]), "rows have"),
        (lambda d: d.update(rows=[]), "rows"),
    ],
)
def test_the_field_is_named(break_it, answer):
    data = json.loads(PLAN.to_json())
    break_it(data)
    with pytest.raises(InputError, match=answer):
        fs.Plan.from_json(json.dumps(data))


def test_the_file_is_named(tmp_path):
    (tmp_path / "p.json").write_text('{"format": "fewstep-plan/2"}')
    with pytest.raises(InputError, match=r"p\.json.*solver is missing"):
        fs.Plan.load(tmp_path / "p.json")


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "pipe", "/dev/zero", "/dev/null"):
        with pytest.raises(InputError, match="a pipe or a device"):
            fs.load_recipe(name)
    for name in (tmp_path, tmp_path / "no", tmp_path / ("x" * 300), "a\0b", 3.5, None):
        with pytest.raises(InputError, match="a folder|cannot be read"):
            fs.load_recipe(name)
    (tmp_path / "latin").write_bytes(b"\xff\xfe\xe9")
    with pytest.raises(InputError, match="cannot be read"):
        fs.load_recipe(tmp_path / "latin")


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))  # fmt: skip  # noqa: E501
@settings(max_examples=100, deadline=None)
def test_any_json_is_answered(data):
    for kept in KEPT:
        with pytest.raises(InputError):
            type(kept).from_json(json.dumps(data))


def test_a_file_is_whole_or_as_before(tmp_path):
    path = tmp_path / "x.json"
    storage.write_json(path, {"a": 1})
    for data in ({"a": float("inf")}, {"a": object()}):
        with pytest.raises(InputError, match="cannot be written as JSON"):
            storage.write_json(path, data)

    def fail(part):
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        storage.write_whole(path, fail)
    assert json.loads(path.read_text()) == {"a": 1} and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_takes_no_files(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        storage.check_writable(tmp_path / "x.json", "--out")


def test_where_a_file_can_be_written(tmp_path):
    assert storage.check_writable(tmp_path / "x.json", "--out") == tmp_path / "x.json"
    assert not list(tmp_path.iterdir())
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "no" / "x", tmp_path, tmp_path / "pipe", tmp_path / ("x" * 300), "a\0b"):
        with pytest.raises(InputError, match="--out"):
            storage.check_writable(name, "--out")

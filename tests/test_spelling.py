"""Solver, grid and skip are spelled in one way: a name, a name with settings, an object, a file."""

import pytest
import torch

import fewstep as fs
from fewstep.errors import InputError

PROCESS = fs.processes.VPLinear()


def test_a_solver_is_a_name_or_an_object():
    solver = fs.UniPC(2)
    assert fs.solvers.named(solver) is solver and fs.solvers.named("unipc:order=2") == solver
    with pytest.raises(InputError, match="did you mean 'order'"):
        fs.solvers.named("unipc:ordr=2")
    with pytest.raises(InputError, match="write 'unipc'"):
        fs.solvers.named(3)


def test_a_grid_is_a_name_an_object_or_a_file(tmp_path):
    grid = fs.grids.karras(PROCESS, 6, rho=5)
    path = tmp_path / "grid.json"
    path.write_text(grid.to_json())
    for spec in (grid, path, str(path), "karras:rho=5"):
        assert torch.equal(fs.grids.named(spec, PROCESS, 6).times, grid.times)
    for spec in (grid, path):
        assert fs.grids.named(spec, PROCESS, None).steps == 6 == fs.grids.read(spec).steps
        with pytest.raises(InputError, match="has 6 steps, not 8"):
            fs.grids.read(spec, 8)
        with pytest.raises(InputError, match="has 6 steps"):
            fs.grids.named(spec, PROCESS, 8)
    assert fs.grids.read("karras:rho=5", 8) is None
    with pytest.raises(InputError, match="how many steps"):
        fs.grids.named("karras", PROCESS, None)


@pytest.mark.parametrize(
    ("spec", "answer"),
    [
        ("karas", "did you mean 'karras'"),
        ("karras:roh=3", "did you mean 'rho'"),
        ("karras:steps=3", "unknown setting"),
        ("missing.json", "cannot be read"),
        (8, "give a name"),
    ],
)
def test_a_grid_is_refused_before_a_process_is_known(spec, answer):
    with pytest.raises(InputError, match=answer):
        fs.grids.read(spec)


def test_skips_are_a_number_settings_an_object_or_a_file(tmp_path):
    profile = fs.skip.Profile(0.7, 0.95)
    profile.save(tmp_path / "skip.json")
    for spec in (profile, tmp_path / "skip.json", str(tmp_path / "skip.json"), "bottom=0.7,top=0.95"):
        assert fs.skip.named(spec) == profile
    assert fs.skip.named(0.8) == fs.skip.named("0.8") == fs.skip.Profile(0.8)
    window = fs.skip.named("bottom=0.7,sigma_window=(0.1,3),ramp=0.5")
    assert window == fs.skip.Profile(0.7, sigma_window=(0.1, 3.0), ramp=0.5)
    for spec, answer in (
        ("botom=1", "did you mean 'bottom'"),
        ("low", "give ρ"),
        ("-1", "at least 0"),
        (True, "give ρ"),
    ):
        with pytest.raises(InputError, match=answer):
            fs.skip.named(spec)

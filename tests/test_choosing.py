"""One recommendation: the table of docs/choosing.md is the rule that ``fs.enable`` and the command line follow."""

import re
from pathlib import Path

import pytest

import fewstep as fs
from fewstep import grids, solvers
from fewstep.recommended import recommended

PAGE = Path(__file__).resolve().parents[1] / "docs" / "choosing.md"
MODELS = {
    "a network on pixels": {"process": fs.processes.VPDiscrete.from_betas()},
    "a network on latents": {"process": fs.processes.VPDiscrete.from_betas(), "latent": True},
    "a flow": {"process": fs.processes.RectifiedFlow()},
    "latents of video": {"process": fs.processes.EDM(0.002, 700.0), "latent": True, "video": True},
}
CALLS = {"any": (1, 5, 9, 10, 20, None), "below ten": (1, 5, 9), "ten or more": (10, 20, None)}


def rows() -> list:
    found = re.findall(r"^\| (.+?): .*? \| (.+?) \| `(.+?)` \| `(.+?)` \| `(.+?)` \|$", PAGE.read_text("utf-8"), re.M)
    return [pytest.param(*row, id=f"{row[0]}, {row[1]}") for row in found]


def test_every_model_and_number_of_calls_has_its_row():
    covered = {(row.values[0], calls) for row in rows() for calls in CALLS[row.values[1]]}
    assert covered == {(model, calls) for model in MODELS for calls in CALLS["any"]}


@pytest.mark.parametrize(("model", "calls", "solver", "grid", "end"), rows())
def test_a_row_is_the_rule(model, calls, solver, grid, end):
    for steps in CALLS[calls]:
        settings = {key: value for key, value in MODELS[model].items() if key != "process"}
        choice = recommended(MODELS[model]["process"], steps, **settings)
        assert (choice.solver, choice.grid) == (solver, grid)
    chosen, process = solvers.named(solver), MODELS[model]["process"]
    made = grids.named(grid, process, 8, solver=chosen)
    assert chosen.plan(made).nfe == 8
    assert made == grids.named(grid, process, 8, end, solver=chosen)

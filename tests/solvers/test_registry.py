"""Solvers in words and back."""

from __future__ import annotations

import pytest
from support.solvers import SOLVERS

import fewstep as fs
from fewstep.errors import InputError


@pytest.mark.parametrize("solver", [*SOLVERS, fs.UniPC(), fs.SASolver(), fs.Euler()], ids=str)
def test_a_solver_in_words_is_the_solver(solver):
    words = fs.solvers.spelled(solver)
    assert isinstance(words, str) and fs.solvers.spelled(words) == words
    again = fs.solvers.named(words)
    assert fs.solvers.spelled(again) == words
    grid = fs.grids.uniform_time(fs.processes.EDM(), 5)
    assert str(again.plan(grid)).splitlines()[1:] == str(solver.plan(grid)).splitlines()[1:]


def test_what_has_no_words():
    class Anonymous(fs.Solver):
        def table(self, grid):
            return fs.Euler().plan(grid)

    with pytest.raises(InputError, match="no name that could be saved"):
        fs.solvers.spelled(Anonymous())
    with pytest.raises(InputError, match="cannot be saved in words"):
        fs.solvers.spelled(fs.SASolver(tau=lambda point: 0.5))

"""SA-Solver over noise predictions: its samples of Gaussian data have the data's deviation, or a word is said."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from support.exact import Gaussian, output_moments

import fewstep as fs
from fewstep.errors import InputError

PROCESSES = [fs.processes.VPLinear(), fs.processes.VPDiscrete.from_betas(), fs.processes.EDM()]
ORDERS = [(1, 0), (2, 2), (3, 0), (3, 4)]


def said(solver, grid):
    """The plan, or None if it is refused, and whether a word was said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            plan = solver.plan(grid)
        except InputError as error:
            assert "unstable" in str(error) and "prediction='x0'" in str(error)
            return None, True
    return plan, any("stable on a grid" in str(one.message) for one in caught)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("mode", ["PEC", "PECE"])
def test_what_explodes_is_refused_or_warned_of(process, mode):
    outcomes = set()
    grids = [fs.grids.named(name, process, steps) for name in ("karras", "uniform_logsnr") for steps in (5, 15, 60)]
    for grid, tau, orders in itertools.product(grids, (0.0, 0.3, 1.0), ORDERS):
        plan, word = said(fs.SASolver(*orders, tau=tau, mode=mode, prediction="epsilon"), grid)
        outcomes.add("refused" if plan is None else "warned" if word else "silent")
        if word:
            continue
        for std in (0.3, 0.5, 1.0, 1.5):
            mean, variance = output_moments(plan, Gaussian(process, 0.0, std))
            assert abs(mean) < 1e-9 and variance**0.5 < 1.6 * std, (orders, tau, grid.steps, std, variance**0.5)
    assert outcomes == {"refused", "warned", "silent"}


def test_the_recommended_form_is_stable():
    """Over data predictions nothing is refused, and nothing spreads over 2.4 times as far."""
    for process, tau, orders in itertools.product(PROCESSES, (0.0, 0.5, 1.0, 1.5), ORDERS):
        plan = fs.SASolver(*orders, tau=tau).plan(fs.grids.karras(process, 5))
        for std in (0.1, 0.5, 1.0):
            assert output_moments(plan, Gaussian(process, 0.0, std))[1] ** 0.5 < 2.4 * std


def test_the_deterministic_form_is_not_refused():
    for process, orders in itertools.product(PROCESSES, ORDERS):
        plan, _ = said(fs.SASolver(*orders, tau=0.0, prediction="epsilon"), fs.grids.karras(process, 5))
        assert plan is not None


def test_a_search_over_grids_goes_through_unstable_ones():
    """Batches of grids are rows to compare, and none of them is a plan to be sampled."""
    grid = fs.grids.karras(fs.processes.VPLinear(), 5)
    solver = fs.SASolver(3, 3, tau=1.0, prediction="epsilon")
    both = solver.plan(fs.TimeGrid(grid.process, torch.stack([grid.times, grid.times])))
    assert both.history_weights.shape[0] == 2
    with pytest.raises(InputError, match=r"unstable on a grid of so few steps \(5\)"):
        fs.sample(lambda x, t: 0.3 * x, solver, grid, torch.zeros(2, 1), seeds=range(2))

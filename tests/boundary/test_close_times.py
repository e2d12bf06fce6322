"""Times that lie close together: within rounding they are refused, further apart no row cancels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.exact import GaussianMixture

import fewstep as fs
from fewstep.errors import InputError
from fewstep.solvers import NAMES

PROCESS = fs.processes.VPLinear()
JOINED = [1.0, 0.7, 0.5, 0.25, 0.1, 0.02]
SOLVERS = [made() for name, made in sorted(NAMES.items())] + [
    fs.UniPC(3),
    fs.UniPC(3, "exact"),
    fs.DPMSolverPP(3),
    fs.DEIS(3),
    fs.SASolver(4, 4, tau=0.5),
    fs.SASolver(3, 4, tau=1.0, mode="PECE"),
    fs.SASolver(2, 2, tau=0.0, few_step=True),
    fs.Heun(),
]


GRID = fs.TimeGrid(PROCESS, [*JOINED, 0.0])


def grid(distance, process=PROCESS):
    return fs.TimeGrid(process, [1.0, 0.7, 0.5, 0.5 - distance, 0.25, 0.1, 0.02, 0.0])


@pytest.mark.parametrize("distance", [0.0, 1e-16, 5.6e-17, 1e-13, 1e-12])
def test_times_within_rounding_are_refused(distance):
    with pytest.raises(InputError, match="within rounding|fall strictly"):
        grid(distance)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize("distance", [1e-9, 1e-8, 1e-6, 1e-4, 1e-3, 1e-2])
def test_samples_are_as_good_as_without_the_extra_time(solver, distance):
    model = GaussianMixture.example(PROCESS)
    x_T = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    without = fs.sample(model, solver, fs.TimeGrid(PROCESS, [*JOINED, 0.0]), x_T, seeds=range(64))
    made = fs.sample(model, solver, grid(distance), x_T, seeds=range(64))
    assert float(made.abs().max()) < 1.5 * float(without.abs().max()) + 0.5


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_no_row_of_several_predictions_cancels(solver):
    rng = np.random.default_rng(0)
    for _ in range(20):
        times = np.sort(np.concatenate([rng.uniform(0.01, 1.0, 4), [0.5, 0.5 - 10.0 ** rng.uniform(-9, -1)]]))[::-1]
        weights = solver.plan(fs.TimeGrid(PROCESS, [*times, 0.0])).history_weights
        several = (weights != 0).sum(-1) > (1 if solver.schedule(GRID).corrector_nodes is None else 2)
        assert bool((weights.abs().sum(-1) <= 51 * weights.sum(-1).abs() + 1e-9)[several].all())


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_batch_of_grids_is_lowered_alike(solver):
    both = fs.TimeGrid(PROCESS, torch.stack([grid(1e-6).times, grid(0.05).times]))
    assert bool(torch.isfinite(solver.plan(both).history_weights).all())

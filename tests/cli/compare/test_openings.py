"""What the cells of a comparison share is asked of the network once, and changes no sample."""

import pytest
import torch

import fewstep as fs
from fewstep.cli.compare.openings import Openings

STEPS = 5
SOLVERS = {
    "ddim": fs.DDIM(),
    "dpmpp": fs.DPMSolverPP(3),
    "sa": fs.SASolver(3, 3, tau=fs.tau.window(0.4, 0.05, 1.0), few_step=True),
    "unipc": fs.UniPC(3),
}


def counting() -> tuple[fs.Denoiser, list[int]]:
    calls: list[int] = []

    def network(x, time):
        calls.append(len(x))
        return torch.tanh(x) * 0.7

    return fs.Denoiser(network, fs.processes.VPDiscrete.from_betas(), "x0", shape=(1, 6, 6)), calls


def drawn(denoiser, solver, seeds=range(3), steps=STEPS) -> torch.Tensor:
    return fs.sample(denoiser, solver, fs.grids.karras(denoiser.process, steps), seeds=seeds)


def test_solvers_on_one_grid_share_their_first_two_calls():
    denoiser, calls = counting()
    openings = Openings()
    for solver in SOLVERS.values():
        drawn(openings.on(denoiser), solver)
    assert len(calls) == STEPS * len(SOLVERS) - 2 * (len(SOLVERS) - 1)
    drawn(openings.on(denoiser), fs.UniPC(), steps=2 * STEPS)  # another grid has the first call in common only
    assert len(calls) == STEPS * len(SOLVERS) - 2 * (len(SOLVERS) - 1) + 2 * STEPS - 1


@pytest.mark.parametrize("name", SOLVERS)
def test_samples_are_those_that_a_cell_has_alone(name):
    denoiser, _ = counting()
    openings = Openings()
    for other in SOLVERS.values():
        drawn(openings.on(denoiser), other)
    assert torch.equal(drawn(openings.on(denoiser), SOLVERS[name]), drawn(denoiser, SOLVERS[name]))


def test_other_noises_are_other_calls():
    denoiser, calls = counting()
    openings = Openings()
    for seeds in (range(3), range(3, 6)):
        drawn(openings.on(denoiser), fs.DDIM(), seeds)
    assert len(calls) == 2 * STEPS


def test_calls_of_another_network_are_other_calls():
    denoiser, calls = counting()
    openings = Openings()
    for network in ("", "skips scaled", ""):
        drawn(openings.on(denoiser, network), fs.DDIM())
    assert len(calls) == 3 * STEPS - 2


def cell(openings, denoiser, steps=STEPS) -> None:
    """Draw three batches, as every cell does."""
    openings.begin()
    for start in (0, 3, 6):
        drawn(openings.on(denoiser), fs.DDIM(), range(start, start + 3), steps)


def test_memory_is_bounded_and_what_is_kept_serves_every_cell():
    """Where not all has room, a part of it is kept for good, not all of it for too short a time."""
    denoiser, calls = counting()
    openings = Openings(limit=4 * 3 * 36 * 4)  # four predictions of six
    for number in range(3):
        calls.clear()
        cell(openings, denoiser)
        assert len(calls) == 3 * STEPS - (4 if number else 0)
        assert openings.kept == sum(kept.nbytes for kept, _ in openings.known.values()) == openings.limit


def test_what_two_cells_did_not_ask_for_gives_way():
    denoiser, calls = counting()
    openings = Openings(limit=6 * 3 * 36 * 4)
    cell(openings, denoiser)
    for number in range(4):  # another grid, which has the first calls in common
        calls.clear()
        cell(openings, denoiser, 2 * STEPS)
        assert len(calls) == 3 * 2 * STEPS - (3 if number < 2 else 6)

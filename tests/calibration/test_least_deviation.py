"""The grid of the least deviation: the best of all grids through the reference's nodes."""

from itertools import combinations

import torch
from support.exact import GaussianMixture

import fewstep as fs
from fewstep.calibration.least_deviation import deviations, least_deviation
from fewstep.calibration.network import CountedNetwork
from fewstep.calibration.reference import Reference, reference_grid

PROCESS = fs.processes.VPLinear()
GRID = fs.grids.karras(PROCESS, 4, end="zero")


def solved(steps):
    x_T = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    network = CountedNetwork(GaussianMixture.example(PROCESS), None, 8, 8)
    return network, Reference.solve(network, reference_grid(GRID, steps), float(GRID.sigma[0]) * x_T)


def test_no_other_grid_through_the_nodes_deviates_less():
    network, reference = solved(11)
    calls, which = network.calls, torch.arange(8)
    found = least_deviation(reference, which, GRID)
    assert network.calls == calls  # It costs none.
    assert found.steps == 4 and found.times[0] == GRID.times[0] and found.times[-1] == 0.0
    cost, times = deviations(reference, which), reference.grid.times.tolist()

    def total(nodes):
        return float(sum(cost[a, b] for a, b in zip(nodes, nodes[1:], strict=False)))

    chosen = total([min(range(12), key=lambda k: abs(times[k] - t)) for t in found.times.tolist()])
    least = min(total([0, *inner, 11]) for inner in combinations(range(1, 11), 3))
    assert abs(chosen - least) <= 1e-12 * least


def test_a_deviation_is_what_an_euler_step_errs_by():
    _, reference = solved(9)
    which = torch.arange(8)
    start, end = 2, 6
    grid = fs.TimeGrid(PROCESS, reference.grid.times[[start, end]])
    row = fs.Euler().plan(grid)
    made = row.state_weight[0] * reference.node(start, which) + row.history_weights[0, 0] * reference.data(start, which)
    off = (made - reference.node(end, which)) / reference.grid.alpha[end]
    torch.testing.assert_close(deviations(reference, which)[start, end], off.square().mean().sqrt(), rtol=1e-9, atol=0)


def test_a_reference_of_fewer_nodes_has_no_such_grid():
    _, reference = solved(9)
    assert least_deviation(reference, torch.arange(8), fs.grids.karras(PROCESS, 12, end="zero")) is None

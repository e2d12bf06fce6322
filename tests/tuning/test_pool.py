"""The candidates and their order: predicted errors on Gaussian data, the best of each solver first."""

from __future__ import annotations

import pytest

import fewstep as fs
from fewstep.grids.spectral import SpectralError
from fewstep.spectra import named
from fewstep.tuning.pool import ranked

PROCESSES = {"vp": fs.processes.VPLinear(), "flow": fs.processes.RectifiedFlow(3.0)}


@pytest.fixture(scope="module", params=PROCESSES)
def pool(request):
    process, spectrum = PROCESSES[request.param], named("power:2")
    return process, spectrum, ranked(process, 4, spectrum, "optimized", stochastic=request.param == "flow")


def test_every_candidate_has_as_many_calls(pool):
    _, _, candidates = pool
    assert len(candidates) > 60
    assert all(settings.plan.nfe == 4 for settings, _ in candidates)
    assert len({settings.key for settings, _ in candidates}) == len(candidates)


def test_the_order(pool):
    """The first of each solver in the order of their errors, which are those on Gaussian data."""
    process, spectrum, candidates = pool

    def family(settings):
        return settings.solver.removesuffix("analytic_first=true").rstrip(",:")

    first = list(dict.fromkeys(family(settings) for settings, _ in candidates))
    turn = candidates[: len(first)]
    assert [family(settings) for settings, _ in turn] == first
    assert [error for _, error in turn] == sorted(error for _, error in turn)
    settings, error = candidates[0]
    measure = SpectralError(process, fs.solvers.named(settings.solver), spectrum)
    assert float(measure.likely(settings.plan.times[None])[0]) == error


def test_shifts_of_a_flow():
    process = PROCESSES["flow"]
    names = [settings.grid for settings, _ in ranked(process, 4, named("power:2"), "optimized", stochastic=False)]
    assert "uniform_time, shift 5" in names
    settings = next(
        settings
        for settings, _ in ranked(process, 4, named("power:2"), "optimized", stochastic=False)
        if settings.grid == "uniform_time, shift 5" and settings.solver == "unipc:order=2"
    )
    even = fs.grids.uniform_time(fs.processes.RectifiedFlow(5.0), 4, end=0.0)
    assert settings.plan.times[1:-1] == pytest.approx(even.times[1:-1])
    assert settings.plan.times[0] == process.t_max


def test_grids_with_a_time_where_two_experts_change():
    process, spectrum = PROCESSES["flow"], named("power:2")
    plain, found = (
        ranked(process, 4, spectrum, "optimized", stochastic=False, boundary=boundary) for boundary in (None, 0.875)
    )
    with_it = [settings for settings, _ in found if "boundary=0.875" in settings.grid]
    assert {settings.grid.partition(",")[0] for settings in with_it} >= {
        "the grid of its spectrum",
        "uniform_time:end=0",
    }
    assert all(0.875 in settings.plan.times.tolist() for settings in with_it)
    assert {settings.key for settings, _ in plain} <= {settings.key for settings, _ in found}

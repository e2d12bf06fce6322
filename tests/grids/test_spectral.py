"""Time steps of the least predicted error: properties over solvers and processes, the floor, and mistakes."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.gaussian_field import GaussianField
from support.solvers import SOLVERS

import fewstep as fs
from fewstep.errors import InputError
from fewstep.grids.log_newton import log_newton
from fewstep.grids.spectral import LogSteps, SpectralError, cleanest
from fewstep.recommended import recommended
from fewstep.spectra import Spectrum, named
from fewstep.spectra.gaussian import end_errors, interval_errors
from fewstep.spectra.nodes import nodes

VP = fs.processes.VPLinear()
STABLE_DIFFUSION = fs.processes.VPDiscrete.from_betas(0.00085, 0.012, schedule="scaled_linear")
PROCESSES = [
    VP,
    fs.processes.VPCosine(),
    fs.processes.VPDiscrete.from_betas(),
    fs.processes.EDM(),
    fs.processes.RectifiedFlow(shift=3.0),
]
ALIGN_YOUR_STEPS = [999, 845, 730, 587, 443, 310, 193, 116, 53, 13]
"""The published timesteps for SDXL in 10 steps (arXiv 2404.14507)."""


@settings(max_examples=40, deadline=None)
@given(
    process=st.sampled_from(PROCESSES),
    solver=st.sampled_from(SOLVERS),
    steps=st.one_of(st.integers(1, 8), st.integers(1, 30)),
    spectrum=st.sampled_from(["pixels", "latents", "power:0", "power:3"]),
    end=st.sampled_from([None, "zero"]),
)
@example(process=PROCESSES[1], solver=fs.IPNDM(4), steps=29, spectrum="power:0", end="zero")  # A singular matrix.
def test_grids_fall_and_are_never_worse_than_a_start(process, solver, steps, spectrum, end):
    grid = fs.grids.optimized(process, solver, steps, spectrum=spectrum, end=end)
    assert grid.steps == steps and bool((grid.times.diff() < 0).all())
    assert float(grid.times[0]) == process.t_max
    to_zero = end == "zero" or process.ends_at_zero
    assert float(grid.times[-1]) == (0.0 if to_zero else process.t_min)
    if to_zero and steps > 1:
        assert float(grid.times[-2]) >= process.t_min * (1 - 1e-9)
    assert grid.report.after <= min(grid.report.before.values()) * (1 + 1e-12)
    assert grid.report.objective == "spectrum" and grid.report.error_power is None


@pytest.mark.parametrize("solver", [fs.DDIM(), fs.UniPC(2), fs.SASolver(2, 2, tau=0.5, few_step=True)], ids=repr)
@pytest.mark.parametrize("steps", [5, 8, 12])
def test_no_grid_nearby_is_better(solver, steps):
    """The minimum, to the tolerance of the search: moving any time by a tenth of its interval gains under 0.1 %."""
    process = PROCESSES[2]
    grid = fs.grids.optimized(process, solver, steps)
    measure = SpectralError(process, solver, named("pixels"))
    logsnr = process.half_logsnr(grid.times[:-1])
    moved = []
    for n in range(1, steps):
        for part in (-0.1, 0.1):
            near = logsnr.clone()
            near[n] += part * float(logsnr[n] - logsnr[n - 1])
            times = process.time(near)
            times[0] = process.t_max
            moved.append(torch.cat([times, torch.zeros(1, dtype=torch.float64)]))
    inside = [times for times in moved if float(times[-2]) >= process.t_min]
    assert float(measure(torch.stack(inside)).min()) > 0.999 * grid.report.after


def test_it_is_deterministic_and_serves_as_a_grid():
    one, two = (fs.grids.optimized(VP, fs.UniPC(3), 7) for _ in range(2))
    assert torch.equal(one.times, two.times)
    assert fs.TimeGrid.from_json(one.to_json()) == one
    assert fs.grids.named("optimized", VP, 7, solver=fs.UniPC(3)) == one
    assert fs.grids.named("optimized:spectrum=pixels", VP, 7, solver=fs.UniPC(3)) == one
    assert fs.grids.named("optimized:spectrum=power:2", VP, 7, solver=fs.UniPC(3)) != one


def test_a_spectrum_may_be_given_in_every_form(tmp_path):
    spectrum = Spectrum.power_law(1.3, (3, 16, 16), variance=0.3)
    spectrum.save(tmp_path / "own.json")
    grids = [fs.grids.optimized(VP, fs.UniPC(2), 6, spectrum=s) for s in (spectrum, tmp_path / "own.json")]
    assert grids[0] == grids[1] == fs.grids.optimized(VP, fs.UniPC(2), 6, spectrum=str(tmp_path / "own.json"))


def test_the_error_is_that_of_intervals_added_up():
    spectrum = Spectrum([2.0, 0.1, 0.01], [1, 5, 10])
    times = torch.stack([fs.grids.karras(VP, 6).times, fs.grids.uniform_time(VP, 6).times])
    got = SpectralError(VP, fs.UniPC(2), spectrum)(times)
    plan = fs.UniPC(2).plan(fs.TimeGrid(VP, times))
    torch.testing.assert_close(got, interval_errors(plan, *nodes(spectrum)).sum(-1))


@pytest.mark.parametrize("solver", [fs.UniPC(3), fs.SASolver(2, 2, tau=0.7, few_step=True)], ids=repr)
def test_the_likely_error_is_the_exact_one_and_half_of_the_intervals(solver):
    measure = SpectralError(VP, solver, Spectrum([2.0, 0.1, 0.01], [1, 5, 10]))
    times = torch.stack([fs.grids.karras(VP, 6).times, fs.grids.uniform_time(VP, 6).times])
    for grid, likely, summed in zip(times, measure.likely(times), measure(times), strict=True):
        exact = end_errors(solver.plan(fs.TimeGrid(VP, grid)), measure.variances).square() @ measure.weights
        torch.testing.assert_close(likely, exact.sqrt() + 0.5 * summed)


@pytest.mark.parametrize("steps", [5, 8])
@pytest.mark.parametrize("solver", [fs.DDIM(), fs.UniPC(2), fs.UniPC(3)], ids=repr)
def test_on_gaussian_data_it_beats_every_heuristic(solver, steps):
    """Measured by ``fs.sample``: the data have another exponent and variance than the grid was made for.

    On such data, and there alone, errors of different intervals may cancel: DPM-Solver++ is luckier on uniform λ in 8
    steps.
    """
    process = PROCESSES[2]
    model = GaussianField(process, (1, 32, 32), exponent=2.3)
    size = float(model.variances.mean())
    spectrum = Spectrum.power_law(2.0, (1, 32, 32), variance=1.5 * size)
    x_T = model.modes(model.modes(model.unit(2)) * model.std(process.t_max), back=True)
    solution = model.modes(model.modes(x_T) * model.variances.sqrt() / model.std(process.t_max), back=True)

    def error(grid):
        return float((fs.sample(model, solver, grid, x_T) - solution).square().mean().sqrt())

    others = [fs.grids.named(name, process, steps) for name in ("uniform_logsnr", "uniform_time", "karras")]
    optimised = fs.grids.optimized(process, solver, steps, spectrum=spectrum)
    assert error(optimised) < min(error(grid) for grid in others)


@pytest.mark.parametrize("steps", [8, 10, 20])
@pytest.mark.parametrize("solver", [fs.UniPC(2), fs.DPMSolverPP(2), fs.DDIM()], ids=repr)
def test_on_stable_diffusions_schedule_no_two_calls_are_below_timestep_10(solver, steps):
    grid = fs.grids.named("optimized:spectrum=latents,floor=0.0045", STABLE_DIFFUSION, steps, solver=solver)
    timesteps = 1000.0 * grid.times[:-1] - 1.0
    assert int((timesteps < 10.0).sum()) <= 1
    assert float(timesteps[0]) == pytest.approx(999.0)


def test_the_timesteps_of_the_docs_are_those_of_the_grids():
    solvers = {
        "the default": fs.UniPC(2),
        "the same for DDIM": fs.DDIM(),
        "the same for DPM-Solver++ of order 2": fs.DPMSolverPP(2),
    }
    page = (Path(__file__).resolve().parents[2] / "docs" / "time-steps.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+?) \| ([\d ]+) \|$", page, re.M)
    checked = []
    for steps, name, timesteps in rows:
        if name not in solvers:
            continue
        words = recommended(STABLE_DIFFUSION, int(steps), latent=True).grid
        grid = fs.grids.named(words, STABLE_DIFFUSION, int(steps), solver=solvers[name])
        written = torch.tensor([float(t) for t in timesteps.split()], dtype=torch.float64)
        assert float((1000.0 * grid.times[:-1] - 1.0 - written).abs().max()) < 0.6, (steps, name)
        checked.append((name, int(steps)))
    assert {("the default", 8), ("the default", 10), ("the default", 20)} < set(checked)
    assert sum("Align Your Steps" in row[1] for row in rows) == 2
    bare = fs.grids.optimized(STABLE_DIFFUSION, fs.UniPC(2), 20, spectrum="latents")
    late = int((1000.0 * bare.times[:-1] - 1.0 < 10.0).sum())
    assert f"would\nspend {['no', 'one', 'two', 'three', 'four'][late]} calls below timestep 10" in page


@pytest.mark.parametrize(("solver", "near"), [(fs.DDIM(), 0.15), (fs.DPMSolverPP(2), 0.25)], ids=repr)
def test_on_latents_it_comes_near_the_published_grid_of_a_tuned_network(solver, near):
    """Root mean square distance in λ to Align Your Steps, which a Monte Carlo on SDXL's network found."""
    grid = fs.grids.optimized(STABLE_DIFFUSION, solver, 10, spectrum="latents", floor=0.0045)
    published = STABLE_DIFFUSION.half_logsnr((torch.tensor(ALIGN_YOUR_STEPS, dtype=torch.float64) + 1.0) / 1000.0)
    assert float((grid.half_logsnr[:-1] - published).square().mean().sqrt()) < near


def test_the_floor_is_what_one_denoising_step_loses():
    spectrum = named("latents")
    time = cleanest(STABLE_DIFFUSION, spectrum, 0.0045)
    plan = fs.DDIM().plan(fs.TimeGrid(STABLE_DIFFUSION, [time, 0.0]))
    lost = interval_errors(plan, spectrum.variances, spectrum.multiplicities / spectrum.size)
    assert float(lost[0]) == pytest.approx(0.0045, rel=0.02)
    assert cleanest(STABLE_DIFFUSION, spectrum, 0.0) == pytest.approx(STABLE_DIFFUSION.t_min)
    grid = fs.grids.optimized(STABLE_DIFFUSION, fs.UniPC(2), 15, spectrum=spectrum, floor=0.0045)
    assert float(grid.times[-2]) >= time * (1 - 1e-9)


def test_where_everything_is_below_the_floor_there_is_still_a_grid():
    grid = fs.grids.optimized(VP, fs.DDIM(), 3, spectrum="power:exponent=2,variance=1e-6", floor=0.5, end="zero")
    assert grid.steps == 3 and bool((grid.times.diff() < 0).all())


def test_above_60_steps_a_heuristic_grid_is_taken_and_said():
    for given_ in ({}, {"objective": "bound"}):
        with pytest.warns(UserWarning, match="more than 60 steps"):
            grid = fs.grids.optimized(VP, fs.UniPC(2), 61, **given_)
        assert grid.report.after == min(grid.report.before.values()) and grid.report.method == "heuristic"


def test_a_flow_starts_where_it_is_asked_to():
    flow = fs.processes.RectifiedFlow(3.0)
    noise, usual = (fs.grids.optimized(flow, fs.UniPC(2), 6, start=start) for start in ("noise", None))
    assert float(noise.times[0]) == 1.0 and torch.equal(noise.times[1:], usual.times[1:])
    late = fs.grids.optimized(flow, fs.UniPC(2), 6, start=0.6)
    assert float(late.times[0]) == 0.6


def test_log_newton_solves_powers():
    """Σ c_m·h_m^3 with Σ h = 1 has its least at h ∝ c^{−1/2}."""
    c = np.array([1.0, 4.0, 9.0, 0.25])

    def terms(x):
        h = np.exp(x)
        return c * (h / h.sum(-1, keepdims=True)) ** 3

    found, values, _ = log_newton(terms, np.zeros((2, 4)) + [[0.0], [0.3]], iterations=40, gain=1e-12)
    h = np.exp(found) / np.exp(found).sum(-1, keepdims=True)
    wanted = c**-0.5 / (c**-0.5).sum()
    assert np.allclose(h, wanted, atol=1e-4) and np.allclose(values, (c * wanted**3).sum(), rtol=1e-7)


def test_log_newton_never_gets_worse():
    def terms(x):
        return np.exp(np.sin(5.0 * x) + 0.3 * x**2)

    starts = np.array([[0.1, 0.9], [2.0, -2.0]])
    _, values, tried = log_newton(terms, starts, iterations=5)
    assert (values <= terms(starts).sum(-1)).all() and tried <= 5


def test_steps_cover_the_range_or_less():
    free, fixed = (LogSteps(VP, 5, 1.0, VP.t_min, to_zero) for to_zero in (True, False))
    x = np.log(np.array([[1.0, 2.0, 3.0, 9.0], [0.1, 0.1, 0.1, 0.1]]))
    times = free.times(x)
    assert float(times[0, -2]) == pytest.approx(VP.t_min) and float(times[1, -2]) > 0.5
    assert times.shape == (2, 6) and bool((times[:, -1] == 0).all())
    times = fixed.times(np.log(np.ones((1, 5))))
    torch.testing.assert_close(times[0], fs.grids.uniform_logsnr(VP, 5, end=VP.t_min).times)


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"objective": "spectra"}, "spectrum"),
        ({"objective": "spectrum", "error_power": 1}, "belongs to objective='bound'"),
        ({"objective": "bound", "spectrum": "pixels"}, "belongs to objective='spectrum'"),
        ({"error_power": 1, "floor": 0.01}, "floor=0.01 belongs"),
        ({"method": "prox-linear", "spectrum": "pixels"}, "belongs to objective='spectrum'"),
        ({"floor": -0.1}, "floor is -0.1"),
        ({"floor": float("nan")}, "floor is nan"),
        ({"spectrum": "nowhere"}, "unknown spectrum 'nowhere'"),
        ({"spectrum": [1.0, 2.0]}, "give a Spectrum"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_mistakes_are_answered(settings_, words):
    given_ = {"steps": 5, **settings_}
    with pytest.raises(InputError, match=words):
        fs.grids.optimized(VP, fs.UniPC(3), given_.pop("steps"), **given_)


@pytest.mark.parametrize("end", ["zero", None])
def test_a_boundary_is_one_of_the_times(end):
    solver = fs.UniPC(2)
    free = fs.grids.optimized(VP, solver, 6, end=end)
    boundary = float(free.times[2])
    bound = fs.grids.optimized(VP, solver, 6, end=end, boundary=boundary)
    assert boundary in bound.times.tolist() and bound.steps == 6
    # It is a time of the best grid of all, so nothing is lost but what three moves of Newton's method gain at its end.
    assert free.report.after <= bound.report.after * (1 + 3e-3) and bound.report.after <= free.report.after * 1.003
    far = float(VP.time(VP.half_logsnr(free.times[1:3]).mean()))
    moved = fs.grids.optimized(VP, solver, 6, end=end, boundary=far)
    assert far in moved.times.tolist() and moved.report.after <= min(moved.report.before.values())

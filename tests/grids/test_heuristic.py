"""The grids by rule: they fall, meet both ends exactly, and are even where they say."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.exact import GaussianMixture
from support.rounding import rounding

import fewstep as fs
from fewstep.errors import InputError

PROCESSES = [
    fs.processes.VPLinear(),
    fs.processes.VPCosine(),
    fs.processes.VPDiscrete.from_betas(),
    fs.processes.EDM(),
    fs.processes.RectifiedFlow(shift=3.0),
]
MAKERS = [fs.grids.uniform_logsnr, fs.grids.uniform_time, fs.grids.quadratic_time, fs.grids.karras]


@given(
    process=st.sampled_from(PROCESSES),
    make=st.sampled_from(MAKERS),
    steps=st.integers(1, 60),
    end=st.sampled_from([None, "zero", 0.01]),
)
def test_falls_and_meets_its_ends(process, make, steps, end):
    grid = make(process, steps, end=end)
    assert grid.steps == steps
    assert bool((grid.times.diff() < 0).all())
    assert float(grid.times[0]) == process.t_max
    to_zero = end == "zero" or (end is None and process.ends_at_zero)
    assert float(grid.times[-1]) == (0.0 if to_zero else process.t_min if end is None else end)
    if to_zero and steps > 1:
        assert float(grid.times[-2]) == process.t_min


@pytest.mark.parametrize(
    ("make", "variable"),
    [
        (fs.grids.uniform_logsnr, lambda p, t: p.half_logsnr(t)),
        (fs.grids.uniform_time, lambda p, t: p.clock(t)),
        (fs.grids.quadratic_time, lambda p, t: p.clock(t).sqrt()),
        (fs.grids.karras, lambda p, t: (p.sigma(t) / p.alpha(t)) ** (1 / 7)),
    ],
)
@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_is_even_in_its_variable(make, variable, process):
    values = variable(process, make(process, 9, end=process.t_min).times)
    gaps = values.diff()
    assert torch.allclose(gaps, gaps.mean().expand_as(gaps), rtol=1e-6)


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
@pytest.mark.parametrize("end", [None, "zero", 0])
def test_early_end_is_even_up_to_its_level_and_then_at_the_noise_free_end(process, end):
    grid = fs.grids.early_end(process, 6, half_logsnr=2.0, end=end)
    assert (grid.steps, float(grid.times[0]), float(grid.times[-1])) == (6, process.t_max, 0.0)
    even = fs.grids.uniform_logsnr(process, 5, end=float(process.time(2.0)))
    assert torch.equal(grid.times[:-1], even.times)
    assert float(grid.half_logsnr[-2]) == pytest.approx(2.0, abs=1e-9)
    assert fs.grids.early_end(process, 1).times.tolist() == [process.t_max, 0.0]


def test_early_end_refuses_other_ends_and_levels_out_of_reach():
    process = fs.processes.VPLinear()
    with pytest.raises(InputError, match="noise-free end"):
        fs.grids.early_end(process, 6, end=0.01)
    with pytest.raises(InputError, match="half_logsnr is 9"):
        fs.grids.early_end(process, 6, half_logsnr=9)


def test_karras_is_that_of_the_paper():
    grid = fs.grids.karras(fs.processes.EDM(), 18)
    i = torch.arange(18, dtype=torch.float64)
    paper = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert torch.allclose(grid.times[:-1], paper, rtol=1e-12)
    assert float(grid.times[-1]) == 0.0


def test_even_time_may_end_at_zero_itself():
    grid = fs.grids.uniform_time(fs.processes.VPLinear(), 4, end=0.0)
    assert torch.allclose(grid.times, torch.linspace(1, 0, 5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: fs.grids.uniform_logsnr(p, 0), "steps is 0"),
        (lambda p: fs.grids.uniform_logsnr(p, 2.5), "steps is 2.5"),
        (lambda p: fs.grids.uniform_logsnr(p, None), "steps is None"),
        (lambda p: fs.grids.uniform_logsnr(p, float("inf")), "steps is inf"),
        (lambda p: fs.grids.named("karras:rho=abc", p, 5), "does not take these settings|rho is 'abc'"),
        (lambda p: fs.grids.named("optimized:error_power=abc", p, 5, solver=fs.UniPC()), "error_power is 'abc'"),
        (lambda p: fs.grids.uniform_logsnr(p, 5, end=0.0), "end='zero'"),
        (lambda p: fs.grids.uniform_time(p, 5, end=1.0), "below 1"),
        (lambda p: fs.grids.uniform_time(p, 5, end="none"), "'zero' or None"),
        (lambda p: fs.grids.karras(p, 5, rho=0), "rho is 0"),
        (lambda p: fs.grids.named("karas", p, 5), "did you mean 'karras'"),
        (lambda p: fs.grids.named("missing.json", p, 5), "cannot be read"),
    ],
)
def test_mistakes_are_answered(call, words):
    with pytest.raises(InputError, match=words):
        call(fs.processes.VPLinear())


def test_a_grid_from_a_file_must_fit(tmp_path):
    process = fs.processes.VPLinear()
    path = tmp_path / "grid.json"
    path.write_text(fs.grids.karras(process, 6).to_json())
    assert fs.grids.named(str(path), process, 6) == fs.grids.karras(process, 6)
    with pytest.raises(InputError, match="6 steps"):
        fs.grids.named(str(path), process, 7)
    with pytest.raises(InputError, match="EDM"):
        fs.grids.named(str(path), fs.processes.EDM(), 6)


STARTED = [*MAKERS, lambda process, steps, **ends: fs.grids.optimized(process, fs.UniPC(2), steps, **ends)]


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
@pytest.mark.parametrize("make", STARTED)
@pytest.mark.parametrize("end", [None, "zero"])
def test_a_grid_may_start_later(make, process, end):
    start = float(process.time(-0.7))
    whole, late = make(process, 6, start=process.t_max, end=end), make(process, 6, start=start, end=end)
    assert torch.equal(whole.times, make(process, 6, end=end).times)
    assert float(late.times[0]) == start and float(late.times[-1]) == float(whole.times[-1])
    assert late.process == process and late.steps == 6


@pytest.mark.parametrize("make", STARTED)
def test_a_flows_grid_may_start_at_pure_noise(make):
    process = fs.processes.RectifiedFlow(shift=3.0)
    grid = make(process, 6, start="noise")
    assert float(grid.times[0]) == 1.0 and grid.starts_at_pure_noise
    assert torch.equal(grid.times, make(process, 6, start=1.0).times)
    usual = make(process, 6)
    assert torch.allclose(grid.times, usual.times, rtol=0, atol=1e-3)
    # From t = 1 the first step goes to data and noise in the proportions of its end: D there is the mean of the data.
    model = GaussianMixture.example(process)
    x = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    near = [fs.sample(model, fs.UniPC(2), made, made.sigma[0] * x) for made in (grid, usual)]
    assert float((near[0] - near[1]).abs().mean()) < 0.02


def test_even_time_is_even_from_pure_noise_on():
    process = fs.processes.RectifiedFlow(shift=3.0)
    grid = fs.grids.uniform_time(process, 4, start="noise", end=0.0)
    assert process.clock(grid.times).tolist() == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


@pytest.mark.parametrize(
    ("start", "words"),
    [("noise", "no time at which α is 0"), (1e-4, "above 0.001 up to 1"), (1.5, "up to 1"), ("end", "'noise' or None")],
)
def test_a_start_that_is_none_is_answered(start, words):
    for make in STARTED:
        with pytest.raises(InputError, match=words):
            make(fs.processes.VPLinear(), 6, start=start)


@pytest.mark.parametrize("process", [fs.processes.VPLinear(), fs.processes.EDM()], ids=repr)
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0, 0.5])
@pytest.mark.parametrize("steps", [1, 7, 20])
def test_even_in_powers_as_the_authors_of_sa_solver_have_them(process, power, steps):
    """λ = λ_T + u^p and t = u^p, u even: their get_time_steps with skip_order p."""
    last = 0.05
    even = torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)
    first, final = process.half_logsnr(torch.tensor([process.t_max, last], dtype=torch.float64))
    theirs = process.time(first + (even * (final - first) ** (1.0 / power)) ** power)
    ours = fs.grids.uniform_logsnr(process, steps, power=power, end=last).times
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    roots = torch.tensor([process.t_max, last], dtype=torch.float64) ** (1.0 / power)
    theirs = roots[0] + even * (roots[1] - roots[0])
    ours = fs.grids.uniform_time(process, steps, power=power, end=last).times ** (1.0 / power)
    # Two powers, which take some roundings each, a product and a sum of numbers up to the first root.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=rounding(32, float(roots.max())))


def test_powers_by_name_and_their_mistakes():
    process = fs.processes.RectifiedFlow(shift=3.0)
    quadratic = fs.grids.quadratic_time(process, 6)
    assert torch.equal(fs.grids.named("uniform_time:power=2", process, 6).times, quadratic.times)
    led = fs.grids.named("uniform_logsnr:power=2", process, 6, end="zero")
    assert bool((led.half_logsnr[:-1].diff().diff() > 0).all())
    noisy = fs.grids.uniform_logsnr(process, 6, power=2, start="noise")
    assert float(noisy.times[0]) == process.t_limit and bool((noisy.times.diff() < 0).all())
    for make in (fs.grids.uniform_logsnr, fs.grids.uniform_time):
        with pytest.raises(InputError, match="power is 0"):
            make(process, 6, power=0)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_a_boundary_is_a_time_and_both_sides_are_even(make, process):
    ends = process.half_logsnr(torch.tensor([process.t_max, process.t_min], dtype=torch.float64))
    boundary = float(process.time(ends.mean()))
    grid = make(process, 6, end=process.t_min, boundary=boundary)
    place = grid.times.tolist().index(boundary)
    assert grid.steps == 6 and 0 < place < 6
    variable = {
        "uniform_logsnr": process.half_logsnr,
        "uniform_time": process.clock,
        "quadratic_time": lambda t: process.clock(t).sqrt(),
        "karras": lambda t: (-process.half_logsnr(t) / 7).exp(),
    }[make.__name__]
    for side in (variable(grid.times[: place + 1]), variable(grid.times[place:])):
        gaps = side.diff()
        assert torch.allclose(gaps, gaps.mean().expand_as(gaps), rtol=1e-6)


@pytest.mark.parametrize(
    ("steps", "boundary", "words"),
    [
        (4, 1.0, "boundary is 1.0: give a time between"),
        (4, "experts", "boundary is 'experts': give a time between"),
        (4, float("nan"), "give a time between"),
        (1, 0.5, "take more steps"),
    ],
)
def test_a_boundary_that_is_none_is_answered(steps, boundary, words):
    process = fs.processes.RectifiedFlow()
    with pytest.raises(InputError, match=words):
        fs.grids.uniform_time(process, steps, boundary=boundary)

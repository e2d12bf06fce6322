"""The executor against the table read row by row, and what it promises besides."""

import math

import numpy as np
import pytest
import torch
from support.exact import GaussianMixture
from support.rounding import by_rows, effect
from support.solvers import SOLVERS

import fewstep as fs
from fewstep.errors import InputError, NonFiniteStateError
from fewstep.executor import NoiseSource

VP = fs.processes.VPLinear()
each_solver = pytest.mark.parametrize("solver", SOLVERS, ids=repr)


def noises(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


@each_solver
@pytest.mark.parametrize("steps", [1, 2, 5, 9])
@pytest.mark.parametrize("end", [None, "zero"])
def test_it_does_what_the_rows_say(solver, steps, end, monkeypatch):
    plan = solver.plan(fs.grids.uniform_logsnr(VP, steps, end=end))
    model, x_T = GaussianMixture.example(VP), noises(6, 2)
    drawn: list[torch.Tensor] = []
    fill = NoiseSource.fill
    monkeypatch.setattr(NoiseSource, "fill", lambda self, out: (fill(self, out), drawn.append(out.clone())))
    got = fs.execute(plan, model, x_T, seeds=range(6))
    noisy = sorted({row.interval for row in plan.rows if row.noise_scale != 0})
    assert len(drawn) == len(noisy)
    noise = [torch.zeros_like(x_T)] * plan.steps
    for n, xi in zip(noisy, drawn, strict=True):
        noise[n] = xi
    expected = by_rows(plan, model, x_T, noise)
    atol = effect(lambda rounded: by_rows(plan, model, x_T, noise, rounded))
    torch.testing.assert_close(got, expected, rtol=0, atol=atol)


@each_solver
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sample_is_bit_identical_in_any_batch(solver, dtype):
    plan = solver.plan(fs.grids.uniform_logsnr(VP, 6))
    x_T = noises(7, 3, 9, 11, dtype=dtype)

    def denoiser(x, t):
        return torch.tanh(x) * (1 - t) + 0.1 * torch.sin(x)

    whole = fs.execute(plan, denoiser, x_T, seeds=range(7))
    for some in ([0], [3, 4], [6, 1, 2]):
        part = fs.execute(plan, denoiser, x_T[some], seeds=some)
        assert torch.equal(part, whole[some])


def test_same_seeds_same_samples_and_the_global_state_is_left_alone():
    plan = fs.SASolver(3, 3, tau=1.0).plan(fs.grids.uniform_logsnr(VP, 5))
    model = GaussianMixture.example(VP)
    before = torch.get_rng_state()
    one, two, other = (fs.execute(plan, model, noises(4, 2), seeds=s) for s in (range(4), range(4), range(4, 8)))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised(dtype):
    plan = fs.UniPC(3).plan(fs.grids.uniform_logsnr(VP, 5))
    model = GaussianMixture.example(VP)
    x_T = noises(4, 2).to(dtype)
    seen = set()

    def denoiser(x, t):
        seen.add(x.dtype)
        return model(x.double(), t).float()

    got = fs.execute(plan, denoiser, x_T)
    assert got.dtype == torch.float32 and seen == {torch.float32}
    assert torch.allclose(got.double(), fs.execute(plan, model, x_T.double()), atol=1e-5)


def test_float32_stays_near_float64_over_many_steps():
    """Coefficients are made in float64: four hundred steps of order 4 lose nothing but the state's rounding."""
    plan = fs.SASolver(4, 5, tau=0.0).plan(fs.grids.uniform_logsnr(VP, 400))
    model, x_T = GaussianMixture.example(VP), noises(16, 2)
    exact = fs.execute(plan, model, x_T)
    got = fs.execute(plan, lambda x, t: model(x.double(), t).float(), x_T.float())
    assert float((got - exact).abs().max()) < 2e-4


@each_solver
def test_the_callback_sees_each_interval_once(solver):
    plan = solver.plan(fs.grids.uniform_logsnr(VP, 4))
    seen = []
    x_T = noises(3, 2)
    got = fs.execute(
        plan,
        GaussianMixture.example(VP),
        x_T,
        seeds=range(3),
        callback=lambda step, t, x_t, x0: seen.append((step, float(t), x_t.clone(), x0.clone())),
    )
    assert [step for step, *_ in seen] == [0, 1, 2, 3]
    assert [t for _, t, *_ in seen] == plan.times[1:].tolist()
    assert torch.equal(seen[-1][2], got)
    assert all(x0.shape == x_T.shape for *_, x0 in seen)


@pytest.mark.parametrize(("solver", "corrected"), [(fs.UniPC(2), False), (fs.SASolver(2, 2, tau=0.0), True)], ids=repr)
def test_the_callbacks_state_is_the_calls_or_the_corrected_one(solver, corrected):
    plan = solver.plan(fs.grids.uniform_logsnr(VP, 4))
    model, called, seen = GaussianMixture.example(VP), [], []

    def denoiser(x, t):
        called.append(x.clone())
        return model(x, t)

    fs.execute(plan, denoiser, noises(3, 2), callback=lambda step, t, x_t, x0: seen.append(x_t.clone()))
    assert torch.equal(seen[0], called[1]) != corrected
    first = {row.interval: row for row in plan.rows}[0]
    at_first = [model(x, t) for x, t in zip(called[:2], plan.call_times, strict=False)]
    new, old = first.history_weights[:2]
    correction = first.state_weight * called[0] + new * at_first[1] + old * at_first[0]
    assert torch.allclose(seen[0], correction) == corrected


def test_the_input_is_left_as_it_was():
    x_T = noises(3, 2)
    kept = x_T.clone()
    fs.execute(fs.UniPC(3).plan(fs.grids.uniform_logsnr(VP, 4)), GaussianMixture.example(VP), x_T)
    assert torch.equal(x_T, kept)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_state_that_is_not_finite_names_its_step(bad):
    plan = fs.UniPC(2).plan(fs.grids.uniform_logsnr(VP, 6))
    calls = iter(range(100))

    def denoiser(x, t):
        return torch.full_like(x, bad) if next(calls) == 3 else x

    with pytest.raises(NonFiniteStateError, match="after step [23] of 6"):
        fs.execute(plan, denoiser, noises(2, 2))


def test_a_state_that_is_not_finite_from_pure_noise_on_has_two_causes():
    """A network that says nothing of the data there, or one that is broken: both are named."""
    process = fs.processes.RectifiedFlow()
    grid = fs.TimeGrid(process, [1.0, 0.5, 0.2])
    for network, prediction in ((torch.sin, "epsilon"), (torch.sin, "edm"), (lambda x: x * torch.nan, "flow")):
        denoiser = fs.Denoiser(lambda x, t, network=network: network(x), process, prediction)
        with pytest.raises(NonFiniteStateError, match="network returned.*At α = 0 an epsilon or edm .* start the grid"):
            fs.sample(denoiser, fs.UniPC(), grid, noises(2, 2))
    with pytest.raises(NonFiniteStateError, match="lower order.$"):
        fs.sample(denoiser, fs.UniPC(), fs.TimeGrid(process, [0.9, 0.5, 0.2]), noises(2, 2))


def test_from_pure_noise_every_solver_is_finite_and_exact_for_one_point():
    process = fs.processes.RectifiedFlow(shift=3.0)
    grid = fs.TimeGrid(process, process.from_clock(torch.linspace(1, 0, 6, dtype=torch.float64)))
    point = noises(2, 3)
    for solver in (fs.Euler(), fs.Heun(), fs.DPMSolverPP(3), fs.UniPC(3), fs.SASolver(3, 3, tau=1.0)):
        got = fs.execute(solver.plan(grid), lambda x, t: point, noises(2, 3), seeds=range(2))
        assert torch.allclose(got, point, atol=1e-12)
    with pytest.raises(InputError, match="α = 0"):
        fs.DEIS(2).plan(grid)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x_T": "noise"}, "x_T is str"),
        ({"x_T": torch.zeros(2, 2, dtype=torch.long)}, "floating-point"),
        ({"x_T": torch.zeros(0, 2)}, "floating-point tensor"),
        ({"x_T": torch.zeros(2, 2).to(torch.float8_e4m3fn)}, "float8_e4m3fn: give a floating-point tensor"),
        ({"x_T": torch.eye(2).to_sparse()}, "torch.float32 torch.sparse_coo: give"),
        ({"denoiser": None}, "denoiser is None"),
        ({"denoiser": lambda x, t: x[:, :1]}, "shaped like x_t"),
        ({"plan": fs.UniPC()}, "solver.plan"),
        ({"plan": fs.UniPC().plan(fs.TimeGrid(VP, [[1.0, 0.5], [1.0, 0.4]]))}, r"batch of \(2,\) plans"),
        ({"seeds": None}, "either seeds"),
        ({"seeds": [1]}, "1 seeds for 2 samples"),
        ({"seeds": [1, -1]}, "at least 0"),
        ({"seeds": [1, 1.5]}, "whole numbers"),
        ({"seeds": [1, math.nan]}, "whole numbers"),
        ({"seeds": [1, math.inf]}, "whole numbers"),
        ({"seeds": [1, "2"]}, "whole numbers"),
        ({"seeds": [1, 2**64]}, "below 2"),
        ({"seeds": np.int64(1)}, "one for each sample"),
        ({"seeds": torch.tensor(1)}, "one for each sample"),
        ({"generator": torch.Generator()}, "not both"),
        ({"seeds": None, "generator": [torch.Generator()]}, "1 generators for 2"),
        ({"seeds": None, "generator": 5}, r"generator is 5: give torch.Generator\(\)"),
        ({"seeds": None, "generator": [1, 2]}, r"generator is \[1, 2\]: give torch.Generator\(\)"),
    ],
)
def test_mistakes_are_answered(change, words):
    plan = fs.SASolver(2, 2, tau=1.0).plan(fs.grids.uniform_logsnr(VP, 3))
    given = {"plan": plan, "denoiser": lambda x, t: x, "x_T": torch.zeros(2, 2), "seeds": [0, 1], **change}
    with pytest.raises(InputError, match=words):
        fs.execute(given.pop("plan"), given.pop("denoiser"), given.pop("x_T"), **given)

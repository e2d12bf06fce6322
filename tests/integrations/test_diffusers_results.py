"""What FewStepScheduler computes: the core's results, the peers', and none of the peers' defects."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from support.rounding import by_rows, effect
from support.scheduler_models import FLOW, PREDICTIONS, data_prediction, denoise, noise, output
from support.solvers import SCHEDULED

import fewstep as fs
from fewstep.integrations.diffusers import FewStepScheduler


def close(a, b, tolerance):
    assert float((a - b).detach().abs().max()) <= tolerance


@pytest.mark.parametrize("solver", SCHEDULED)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_one_point_flow_ends_at_its_point(solver, order):
    point = noise(2, 4, 8, 8, seed=5)
    for steps in (1, 4, 5, 10, 20):
        scheduler = FewStepScheduler(**FLOW, solver=solver, solver_order=order)
        end = denoise(scheduler, noise(2, 4, 8, 8), steps, D=lambda x, alpha, sigma: point.double())
        close(end, point, 1e-6)


@pytest.mark.parametrize("steps", ["karras", "exponential", "beta", "uniform_logsnr", "uniform_time"])
@pytest.mark.parametrize("kind", ["epsilon", "flow_prediction"])
def test_no_step_is_wasted_on_any_grid(steps, kind):
    point = noise(1, 2, 4, 4, seed=5)
    for final in ("zero", "sigma_min"):
        scheduler = FewStepScheduler(**PREDICTIONS[kind], solver="sa", grid=steps, final_sigmas_type=final)
        end = denoise(scheduler, noise(1, 2, 4, 4), 5, D=lambda x, alpha, sigma: point.double())
        assert bool((scheduler.sigmas.diff() < 0).all())
        last = scheduler.sigmas[-1]
        assert float(last) == 0 if final == "zero" else 0 < float(last) < 0.05
        close(end, point, 1e-5 if final == "zero" else 5 * float(last))


class Network(torch.nn.Module):
    """A small network that is fed diffusers' timesteps."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.mix = torch.nn.Parameter(0.5 * torch.randn(4, 4, generator=generator, dtype=torch.float64))
        self.scale = scale

    def forward(self, x, timestep):
        t = (torch.as_tensor(timestep, dtype=x.dtype) / self.scale).reshape(-1, 1, 1, 1)
        return torch.tanh(torch.einsum("ij,bjhw->bihw", self.mix.to(x.dtype), x)) * (0.3 + t) + 0.2 * torch.cos(3 * t)


OF_ORDER_3 = {
    "dpmpp": fs.DPMSolverPP(3, "published"),
    "ipndm": fs.IPNDM(3),
    "sa": fs.SASolver(3, 3, tau=fs.tau.constant(0.0), few_step=True),
}
"""Where the scheduler's form is not the solver's default."""
CORE = {name: OF_ORDER_3.get(name) or fs.solvers.named(name) for name in SCHEDULED}


@pytest.mark.parametrize("solver", SCHEDULED)
@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("steps", ["simple", "karras", "uniform_logsnr"])
def test_the_same_result_as_the_core(solver, kind, steps):
    settings = {**PREDICTIONS[kind], "solver": solver, "solver_order": 3, "tau": 0.0, "grid": steps}
    scheduler = FewStepScheduler(**settings)
    scheduler.set_timesteps(7)
    assert scheduler.plan.solver == repr(CORE[solver])
    network, x = Network(1000.0), noise(2, 4, 6, 6, dtype=torch.float64)
    names = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}
    flow_time = (lambda t: 1000 * t) if kind == "flow_prediction" else None
    denoiser = fs.Denoiser(network, scheduler.grid.process, names[kind], network_time=flow_time)
    plan = CORE[solver].plan(scheduler.grid)
    expected = fs.execute(plan, denoiser, x)
    # Timesteps are float32 even where states are float64.
    off = effect(lambda rounded: by_rows(plan, denoiser, x, rounded=rounded), torch.float32)
    for dtype in (torch.float64, torch.float32):
        got = x.to(dtype)
        scheduler.set_timesteps(7)
        for t in scheduler.timesteps:
            got = scheduler.step(network(got, t), t, got).prev_sample
        close(got, expected, off)


@pytest.mark.parametrize("steps", [1, 2, 5, 12])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_unipc_is_that_of_diffusers(steps, order, kind):
    settings = {**PREDICTIONS[kind], "solver_order": order}
    x, results = noise(2, 4, 8, 8), []
    for scheduler_class in (FewStepScheduler, UniPCMultistepScheduler):
        results.append(denoise(scheduler_class(**settings), x, steps))
    close(*results, 1e-4)


def test_unipc_is_that_of_diffusers_in_its_other_variant():
    settings = {"solver_type": "bh1", "solver_order": 3, "final_sigmas_type": "sigma_min"}
    x = noise(2, 4, 8, 8)
    close(denoise(FewStepScheduler(**settings), x, 8), denoise(UniPCMultistepScheduler(**settings), x, 8), 1e-4)


def test_unipc_is_that_of_diffusers_on_custom_sigmas():
    x, sigmas = noise(2, 4, 8, 8), np.linspace(1.0, 1 / 8, 8)
    settings = {**FLOW, "solver_order": 3}
    ours = denoise(FewStepScheduler(**settings), x, sigmas=sigmas)
    close(ours, denoise(UniPCMultistepScheduler(**settings), x, sigmas=sigmas), 1e-4)


@pytest.mark.parametrize("steps", [1, 2, 5, 12])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_dpmpp_is_that_of_diffusers(steps, order):
    x = noise(2, 4, 8, 8)
    ours = denoise(FewStepScheduler(solver="dpmpp", solver_order=order), x, steps)
    close(ours, denoise(DPMSolverMultistepScheduler(solver_order=order), x, steps), 1e-4)


def test_dpmpp_is_that_of_diffusers_under_a_flow():
    theirs = DPMSolverMultistepScheduler(**FLOW)
    expected = denoise(theirs, noise(2, 4, 8, 8), 10)
    ours = FewStepScheduler(**{**FLOW, "flow_shift": 1.0}, solver="dpmpp")
    close(denoise(ours, noise(2, 4, 8, 8), sigmas=theirs.sigmas), expected, 1e-4)


def test_leaving_correctors_out_is_that_of_diffusers():
    settings = {"disable_corrector": [0, 2], "solver_order": 2}
    x = noise(2, 4, 8, 8)
    close(denoise(FewStepScheduler(**settings), x, 8), denoise(UniPCMultistepScheduler(**settings), x, 8), 1e-4)
    plain = denoise(FewStepScheduler(solver="unipc", corrector_order=0), x, 8)
    close(plain, denoise(UniPCMultistepScheduler(disable_corrector=list(range(8))), x, 8), 1e-4)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_order_need_not_fall_at_the_end(order):
    scheduler = FewStepScheduler(solver_order=order, lower_order_final=False)
    assert bool(torch.isfinite(denoise(scheduler, noise(2, 4, 8, 8), 10)).all())


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("solver", SCHEDULED)
def test_bfloat16_latents_lose_little(kind, solver):
    """Relative error at 50 steps against the float64 run: diffusers' UniPC is at 0.03 here."""

    def run(dtype):
        scheduler = FewStepScheduler(**PREDICTIONS[kind], solver=solver, tau=0.0)
        return denoise(scheduler, noise(4, 4, 8, 8).bfloat16().to(dtype), 50).double()

    exact = run(torch.float64)
    # What is left are the roundings of the last prediction and the last state, half an eps each at most.
    assert float((run(torch.bfloat16) - exact).norm() / exact.norm()) < torch.finfo(torch.bfloat16).eps


def test_high_orders_keep_their_digits_in_many_steps():
    x = noise(2, 4, 8, 8, dtype=torch.float64)
    settings = {"solver": "sa", "solver_order": 4, "tau": 0.0}
    single, double = (denoise(FewStepScheduler(**settings), x.to(d), 200).double() for d in (torch.float32, x.dtype))
    close(single, double, 1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("solver", SCHEDULED)
def test_a_changed_sample_is_the_state(solver, dtype):
    """An inpainting pipeline puts its own pixels in between two steps: they must not be lost."""
    noise_held = CORE[solver].plan(fs.grids.karras(fs.processes.EDM(), 2)).prediction == "epsilon"
    prediction = "epsilon" if noise_held else "sample"
    scheduler, ends = FewStepScheduler(solver=solver, tau=0.0, prediction_type=prediction), []
    for change in (0.0, 1.0):
        scheduler.set_timesteps(6)
        x = noise(1, 2, 4, 4, dtype=dtype)
        for i, t in enumerate(scheduler.timesteps[:-1]):
            x = x + change if i == 3 else x
            x = scheduler.step(torch.full_like(x, 0.5), t, x).prev_sample
        ends.append(x.double())
    # Where the network always predicts the same x0, a change of x scales with σ; the same noise: with α.
    level = scheduler.grid.alpha if noise_held else scheduler.grid.sigma
    scaled = torch.full_like(ends[0], float(level[5] / level[3]))
    lost = torch.finfo(dtype).eps * float(ends[1].abs().max())
    torch.testing.assert_close(ends[1] - ends[0], scaled, rtol=0, atol=4 * lost)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_rounding_takes_is_given_back(dtype):
    scheduler = FewStepScheduler(solver="euler")
    scheduler.set_timesteps(200)
    x = noise(1, 4, 16, 16, dtype=dtype)
    expected = x.double() / float(scheduler.grid.alpha[0])
    for t in scheduler.timesteps:
        x = scheduler.step(torch.zeros_like(x), t, x).prev_sample
    assert float((x.double() - expected).norm() / expected.norm()) < torch.finfo(dtype).eps


def stochastic(**settings):
    return FewStepScheduler(solver="sa", **{"tau": 1.0, "seed": 3, **settings})


def test_tau_is_read_at_the_target_and_the_last_step_adds_no_noise():
    scheduler = stochastic(tau_window=[0.05, 5.0])
    scheduler.set_timesteps(6)
    levels = scheduler.sigmas.double()
    inside = [(0.05 <= float(s) <= 5.0) and n < 5 for n, s in enumerate(levels[1:])]
    first = [
        i for i, step in enumerate(scheduler.plan.interval.tolist()) if step not in scheduler.plan.interval.tolist()[:i]
    ]
    assert (scheduler.plan.noise_scale[first] != 0).tolist() == inside
    assert any(inside) and not all(inside)


def test_the_seed_alone_decides_and_the_batch_does_not():
    x = noise(4, 2, 4, 4)
    whole = denoise(stochastic(), x, 6)
    torch.manual_seed(123)
    assert torch.equal(whole, denoise(stochastic(), x, 6))
    torch.testing.assert_close(denoise(stochastic(), x[:2], 6), whole[:2])
    assert not torch.allclose(denoise(stochastic(seed=4), x, 6), whole, atol=1e-2)


def test_generators_one_for_each_image_are_independent_of_the_batch():
    x = noise(4, 2, 4, 4)

    def generators(*seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    whole = denoise(stochastic(), x, 6, generator=generators(1, 2, 3, 4))
    torch.testing.assert_close(denoise(stochastic(), x[1:3], 6, generator=generators(2, 3)), whole[1:3])
    one = torch.Generator().manual_seed(9)
    again = denoise(stochastic(), x, 6, generator=torch.Generator().manual_seed(9))
    assert torch.equal(denoise(stochastic(), x, 6, generator=one), again)
    with pytest.raises(fs.errors.InputError, match="3 generators for 4 samples"):
        denoise(stochastic(), x, 6, generator=generators(1, 2, 3))
    with pytest.raises(fs.errors.InputError, match=r"generator is 5: give torch.Generator\(\)"):
        denoise(stochastic(), x, 6, generator=5)


def test_the_noise_is_the_cores():
    scheduler = stochastic(solver_order=2, prediction_type="sample")
    scheduler.set_timesteps(5)
    x, network = noise(3, 4, 6, 6), Network(1000.0)
    denoiser = fs.Denoiser(network, scheduler.grid.process, "x0")
    expected = fs.sample(denoiser, fs.SASolver(2, 2, few_step=True), scheduler.grid, x, seeds=[3, 4, 5])
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t), t, x).prev_sample
    close(x, expected, 1e-5)


def test_noise_is_drawn_only_where_it_is_needed():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    denoise(stochastic(tau=0.0), noise(2, 2, 4, 4), 5, generator=generator)
    assert torch.equal(before, generator.get_state())


@pytest.mark.parametrize("kind", ["epsilon", "flow_prediction"])
@pytest.mark.parametrize("by", ["begin index", "timestep"])
def test_image_to_image_begins_in_the_middle(kind, by):
    image, eps = noise(2, 4, 8, 8, seed=7), noise(2, 4, 8, 8, seed=8)
    scheduler = FewStepScheduler(**PREDICTIONS[kind], solver_order=3)
    scheduler.set_timesteps(10)
    start = 4
    if by == "begin index":
        scheduler.set_begin_index(start)
    latent_timestep = scheduler.timesteps[start : start + 1].repeat(2)
    x = scheduler.add_noise(image, eps, latent_timestep)
    alpha, sigma = float(scheduler.grid.alpha[start]), float(scheduler.grid.sigma[start])
    torch.testing.assert_close(x, alpha * image + sigma * eps)
    torch.testing.assert_close(scheduler.scale_noise(image, latent_timestep, eps), x)
    grid = fs.TimeGrid(scheduler.grid.process, scheduler.grid.times[start:])
    for i, t in enumerate(scheduler.timesteps[start:]):
        x = scheduler.step(output(x, scheduler.sigmas[start + i], kind), t, x).prev_sample

    def exact(x_t, t):
        return data_prediction(x_t.double(), grid.process.alpha(t), grid.process.sigma(t)).to(x_t.dtype)

    start_state = scheduler.add_noise(image, eps, latent_timestep)
    close(x, fs.sample(exact, fs.UniPC(3), grid, start_state), 1e-5)


def test_add_noise_in_the_middle_of_a_run_takes_the_given_time():
    scheduler = FewStepScheduler()
    scheduler.set_timesteps(5)
    scheduler.set_begin_index(0)
    x, eps = noise(1, 4, 8, 8), noise(1, 4, 8, 8, seed=1)
    x = scheduler.step(eps, scheduler.timesteps[0], x).prev_sample
    noisy = scheduler.add_noise(x, eps, torch.tensor([scheduler.timesteps[3]]))
    torch.testing.assert_close(noisy, float(scheduler.grid.alpha[3]) * x + float(scheduler.grid.sigma[3]) * eps)


def test_gradients_are_neither_kept_nor_in_the_way():
    scheduler = FewStepScheduler()
    scheduler.set_timesteps(3)
    x = noise(1, 4, 8, 8).requires_grad_()
    for t in scheduler.timesteps:
        x = scheduler.step(2 * x, t, x).prev_sample
    assert not x.requires_grad


def test_an_edm_network_is_preconditioned_as_in_diffusers():
    from diffusers import EDMEulerScheduler

    x, network = 80 * noise(2, 4, 8, 8), Network(1.0)
    for prediction in ("epsilon", "v_prediction"):
        theirs = EDMEulerScheduler(prediction_type=prediction)
        results = []
        for scheduler in (theirs, FewStepScheduler.from_config(theirs.config, solver="euler")):
            scheduler.set_timesteps(12)
            assert scheduler.init_noise_sigma == theirs.init_noise_sigma
            state = x.clone()
            for t in scheduler.timesteps:
                state = scheduler.step(network(scheduler.scale_model_input(state, t), t), t, state).prev_sample
            results.append(state)
        close(*results, 2e-3)


def test_nothing_is_warned_about_in_ordinary_use():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        denoise(FewStepScheduler(grid="karras"), noise(1, 4, 8, 8), 4)


@pytest.mark.parametrize("settings", [{}, {"solver": "sa"}, {"clip_sample": True}, {"thresholding": True}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_scheduler_pickled_in_the_middle_of_a_run_goes_on_alike(settings, dtype):
    scheduler = FewStepScheduler(**settings, solver_order=3)
    scheduler.set_timesteps(6)
    x = noise(1, 4, 8, 8).to(dtype)
    for t in scheduler.timesteps[:3]:
        x = scheduler.step(0.3 * x, t, x).prev_sample
    copies = [scheduler, pickle.loads(pickle.dumps(scheduler)), copy.deepcopy(scheduler)]
    ends = []
    for one in copies:
        state = x.clone()
        for t in one.timesteps[3:]:
            state = one.step(0.3 * state, t, state).prev_sample
        ends.append(state)
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])


@pytest.mark.parametrize(
    ("settings", "beyond", "within"),
    [
        ({}, [1500, -5], [0, 999]),
        ({"prediction_type": "flow_prediction"}, [1500, -1], [0, 1000]),
        ({"sigma_data": 0.5}, [1e4], [0.25]),
    ],
    ids=str,
)
def test_noise_is_added_within_the_trained_range_alone(settings, beyond, within):
    scheduler, x = FewStepScheduler(**settings), torch.ones(1, 1, 2, 2)
    for timestep in beyond:
        with pytest.raises(fs.errors.InputError, match="the network was trained on"):
            scheduler.add_noise(x, x, torch.tensor([timestep]))
    for timestep in within:
        assert bool(torch.isfinite(scheduler.add_noise(x, x, torch.tensor([timestep]))).all())


def test_a_single_step_gives_x0_in_the_second_place():
    """PixArt's pipeline reads it there, as of the schedulers that have it."""
    scheduler, x = FewStepScheduler(final_sigmas_type="sigma_min"), noise(1, 4, 8, 8)
    scheduler.set_timesteps(1)
    output = 0.3 * x
    made = scheduler.step(output, scheduler.timesteps[0], x, return_dict=False)
    alpha = float(scheduler.alphas_cumprod[999]) ** 0.5
    close(made[1], (x - (1 - alpha**2) ** 0.5 * output) / alpha, 1e-4)
    scheduler.set_timesteps(2)
    assert len(scheduler.step(output, scheduler.timesteps[0], x, return_dict=False)) == 1

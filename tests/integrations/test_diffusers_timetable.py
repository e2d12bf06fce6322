"""Where the steps are, and that σ belongs to what the network is fed."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from support.scheduler_models import FLOW, denoise, noise

import fewstep as fs
from fewstep.errors import InputError
from fewstep.integrations.diffusers import FewStepScheduler

VP = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
PLACEMENTS = [
    "simple",
    "uniform_logsnr",
    "uniform_time",
    "karras",
    "exponential",
    "beta",
    "trailing",
    "leading",
    "linspace",
]


def belongs(scheduler):
    """Whether each σ is the process's own at the time the network is fed."""
    fed = scheduler.timesteps.double()
    if scheduler.config.use_flow_sigmas:
        expected = fed / 1000
    else:
        process = fs.processes.VPDiscrete.from_betas(0.00085, 0.012, 1000, "scaled_linear")
        expected = torch.exp(-process.half_logsnr((fed + 1) / 1000))
    return torch.allclose(scheduler.sigmas[:-1].double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("config", [VP, FLOW], ids=["vp", "flow"])
@pytest.mark.parametrize("steps", PLACEMENTS)
@pytest.mark.parametrize("integer", [False, True])
def test_sigma_belongs_to_the_timestep(config, steps, integer):
    scheduler = FewStepScheduler(**config, grid=steps, integer_timesteps=integer)
    for num in (1, 2, 3, 5, 8, 33, 60):
        scheduler.set_timesteps(num)
        assert belongs(scheduler)
        assert bool((scheduler.timesteps.diff() < 0).all()) and bool((scheduler.sigmas.diff() < 0).all())
        assert scheduler.timesteps.dtype in ((torch.int64,) if integer else (torch.int64, torch.float32))
        assert float(scheduler.timesteps.min()) >= 0


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("num", [4, 10, 25])
def test_spacings_are_those_of_diffusers(spacing, num):
    settings = {**VP, "timestep_spacing": spacing, "steps_offset": 1 if spacing == "leading" else 0}
    ours, theirs = FewStepScheduler(**settings), diffusers.UniPCMultistepScheduler(**settings)
    for one in (ours, theirs):
        one.set_timesteps(num)
    assert ours.timesteps.tolist() == theirs.timesteps.tolist() and ours.timesteps.dtype == torch.int64
    torch.testing.assert_close(ours.sigmas, theirs.sigmas, rtol=1e-4, atol=1e-5)
    named = FewStepScheduler(**VP, grid=spacing, steps_offset=settings["steps_offset"])
    named.set_timesteps(num)
    assert torch.equal(named.timesteps, ours.timesteps)


@pytest.mark.parametrize("flag", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])
def test_levels_are_those_of_diffusers(flag):
    settings = {**VP, flag: True}
    ours, theirs = FewStepScheduler(**settings), diffusers.UniPCMultistepScheduler(**settings)
    for one in (ours, theirs):
        one.set_timesteps(8)
    torch.testing.assert_close(ours.sigmas, theirs.sigmas, rtol=1e-3, atol=1e-4)


def test_two_flags_are_refused():
    scheduler = FewStepScheduler(use_karras_sigmas=True, use_beta_sigmas=True)
    with pytest.raises(InputError, match="use_karras_sigmas and use_beta_sigmas"):
        scheduler.set_timesteps(4)


def test_a_flow_is_spaced_as_unipc_does_it():
    settings = {**FLOW, "shift_terminal": 0.1}
    ours, theirs = FewStepScheduler(**settings), diffusers.UniPCMultistepScheduler(**settings)
    for one in (ours, theirs):
        one.set_timesteps(8)
    torch.testing.assert_close(ours.sigmas, theirs.sigmas, rtol=1e-5, atol=1e-6)
    assert float(ours.sigmas[-2]) == pytest.approx(0.1)


def test_one_step_under_a_terminal_shift():
    scheduler = FewStepScheduler(**FLOW, shift_terminal=0.1)
    scheduler.set_timesteps(1)
    assert scheduler.timesteps.tolist() == [pytest.approx(1000, abs=0.01)] and scheduler.sigmas[-1] == 0


AYS = [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]
AYS_SIGMAS = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0]


@pytest.mark.parametrize("make", [list, np.array, torch.tensor, tuple])
def test_custom_timesteps(make):
    scheduler = FewStepScheduler(**VP)
    scheduler.set_timesteps(timesteps=make(AYS))
    assert scheduler.timesteps.tolist() == AYS and belongs(scheduler)
    scheduler.set_timesteps(timesteps=make([900.5, 300.25, 10.75]))
    assert scheduler.timesteps.tolist() == [900.5, 300.25, 10.75] and belongs(scheduler)


@pytest.mark.parametrize("make", [list, np.array, torch.tensor, tuple])
def test_custom_sigmas(make):
    scheduler = FewStepScheduler(**VP)
    for sigmas in (AYS_SIGMAS, AYS_SIGMAS[:-1]):
        scheduler.set_timesteps(sigmas=make(sigmas))
        torch.testing.assert_close(scheduler.sigmas, torch.tensor(AYS_SIGMAS), rtol=1e-3, atol=1e-6)
        assert belongs(scheduler) and scheduler.num_inference_steps == 10


def test_custom_levels_of_a_flow():
    scheduler = FewStepScheduler(**FLOW)
    scheduler.set_timesteps(timesteps=[900.0, 500.0, 100.0])
    assert belongs(scheduler)
    sigmas = torch.tensor([0.9, 0.5, 0.1])
    scheduler.set_timesteps(sigmas=sigmas)
    torch.testing.assert_close(scheduler.sigmas[:-1], 3 * sigmas / (1 + 2 * sigmas))
    assert belongs(scheduler)


def test_pairs_may_disagree():
    """CogView4 feeds its network unshifted times."""
    scheduler = FewStepScheduler(**FLOW)
    scheduler.set_timesteps(timesteps=[1000, 500, 1], sigmas=[1.0, 0.5, 0.001])
    assert scheduler.timesteps.tolist() == [1000, 500, 1]
    assert float(scheduler.sigmas[1]) == pytest.approx(0.75)
    x, eps = noise(1, 2, 4, 4), noise(1, 2, 4, 4, seed=1)
    torch.testing.assert_close(scheduler.add_noise(x, eps, torch.tensor([500])), 0.25 * x + 0.75 * eps)


def test_a_pipelines_own_sigmas_leave_the_placement_to_us():
    named, passed = (FewStepScheduler(**FLOW, grid="karras") for _ in range(2))
    named.set_timesteps(6)
    passed.set_timesteps(sigmas=np.linspace(1.0, 1 / 6, 6))
    assert torch.equal(named.sigmas, passed.sigmas)
    with pytest.warns(UserWarning, match="3 sigmas are given.*grid='karras' is not"):
        passed.set_timesteps(sigmas=[1.0, 0.7, 0.3])
    torch.testing.assert_close(passed.sigmas[1:3], torch.tensor([2.1 / 2.4, 0.9 / 1.6]))
    simple = FewStepScheduler(**FLOW)
    simple.set_timesteps(sigmas=np.linspace(1.0, 1 / 6, 6))
    assert float(simple.sigmas[-2]) == pytest.approx(3 / 6 / (1 + 2 / 6))


@pytest.mark.parametrize("flag", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])
@pytest.mark.parametrize("sigmas", [np.linspace(1.0, 1 / 7, 7), np.array([0.95, 0.6, 0.5, 0.1])], ids=["own", "given"])
@pytest.mark.parametrize("inverted", [False, True])
def test_a_flows_flags_place_what_the_pipeline_passes(flag, sigmas, inverted):
    settings = {"shift": 3.0, "shift_terminal": 0.05, "invert_sigmas": inverted, flag: True}
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(**settings)
    ours = FewStepScheduler.from_config(theirs.config)
    for one in (ours, theirs):
        one.set_timesteps(sigmas=sigmas)
    torch.testing.assert_close(ours.sigmas, theirs.sigmas, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.timesteps.float(), theirs.timesteps, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("flag", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])
@pytest.mark.parametrize("num", [1, 4, 8])
@pytest.mark.parametrize("mu", [None, 0.7])
def test_a_flows_flags_where_only_the_number_is_passed(flag, num, mu):
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=mu is not None, **{flag: True})
    ours = FewStepScheduler.from_config(theirs.config)
    for one in (ours, theirs):
        one.set_timesteps(num, mu=mu)
    torch.testing.assert_close(ours.sigmas, theirs.sigmas, rtol=1e-4, atol=1e-5)


def test_unipcs_flags_for_a_flow_are_over_its_noise_to_signal_ratio():
    flags = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    flagged = FewStepScheduler(**flags, use_karras_sigmas=True)
    named = FewStepScheduler(**flags, grid="karras")
    for one in (flagged, named):
        one.set_timesteps(8)
    assert torch.equal(flagged.grid.times, named.grid.times)


def test_above_a_hundred_steps_nothing_is_searched():
    many, even = (FewStepScheduler(**VP, grid=steps) for steps in ("optimized", "uniform_logsnr"))
    for one in (many, even):
        one.set_timesteps(1000)
    assert torch.equal(many.grid.times, even.grid.times)


def test_whole_timesteps_of_an_inverted_flow():
    scheduler = FewStepScheduler(**FLOW, invert_sigmas=True, integer_timesteps=True)
    for num in (1, 3, 8, 60):
        scheduler.set_timesteps(num)
        assert scheduler.timesteps.dtype == torch.int64 and bool((scheduler.timesteps.diff() > 0).all())
        torch.testing.assert_close(scheduler.sigmas[:-1], scheduler.timesteps / 1000, atol=2e-6, rtol=0)
    with pytest.raises(InputError, match="an EDM network receives"):
        FewStepScheduler(sigma_data=0.5, integer_timesteps=True).set_timesteps(4)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({}, "give a number of steps"),
        ({"timesteps": [900, 500, 500, 100]}, "timesteps repeat"),
        ({"sigmas": [1.0, 2.0]}, "sigmas repeat or turn back"),
        ({"num_inference_steps": 4, "timesteps": [900, 500]}, "must agree"),
        ({"sigmas": []}, "give at least one"),
        ({"sigmas": [float("nan"), 1.0]}, "all finite"),
        ({"sigmas": [80.0, 1.0]}, "trained up to σ/α = 14.6"),
        ({"sigmas": [-1.0]}, r"sigmas are \[-1.0\]: give levels above 0"),
        ({"sigmas": [0.0]}, r"sigmas are \[0.0\]: give levels above 0"),
        ({"timesteps": [1000]}, "timesteps are 1000: the network was trained on 0 to 999"),
        ({"timesteps": [999, -1]}, "timesteps are 999, -1: the network was trained on 0 to 999"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
    ],
)
def test_wrong_calls_are_refused(call, said):
    with pytest.raises(InputError, match=said):
        FewStepScheduler(**VP).set_timesteps(**call)


def test_a_refused_call_leaves_the_last_one():
    scheduler = FewStepScheduler(**VP)
    scheduler.set_timesteps(4)
    before = scheduler.timesteps
    with pytest.raises(InputError):
        scheduler.set_timesteps(timesteps=[1, 2])
    assert torch.equal(scheduler.timesteps, before) and scheduler.num_inference_steps == 4


def test_an_inverted_flow_counts_from_the_noise():
    """Mochi's network is fed 1000·(1 − t) and puts out x0 − ε."""
    point, plain = noise(1, 2, 4, 4, seed=3), FewStepScheduler(**FLOW)
    expected = denoise(plain, noise(1, 2, 4, 4), 6, D=lambda x, a, s: (point + 0.1 * x).double())
    scheduler = FewStepScheduler(**FLOW, invert_sigmas=True)
    scheduler.set_timesteps(6)
    assert scheduler.timesteps[0] < 1e-2 and scheduler.sigmas[-1] == 1
    x = noise(1, 2, 4, 4)
    for t, sigma in zip(scheduler.timesteps, 1 - scheduler.sigmas, strict=False):
        torch.testing.assert_close(t, 1000 * (1 - sigma), rtol=1e-4, atol=1e-2)
        x0 = point + 0.1 * x
        x = scheduler.step((x0 - x) / sigma, t, x).prev_sample
    torch.testing.assert_close(x, expected, rtol=1e-3, atol=1e-3)


def test_there_are_only_so_many_whole_numbers():
    scheduler = FewStepScheduler(num_train_timesteps=8, integer_timesteps=True)
    scheduler.set_timesteps(8)
    assert scheduler.timesteps.tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    with pytest.raises(InputError, match="no 9 different whole timesteps"):
        scheduler.set_timesteps(9)


def test_optimized_is_the_cores_and_found_once():
    scheduler = FewStepScheduler(**VP, solver="unipc", grid="optimized", error_power=2.0)
    scheduler.set_timesteps(5)
    solver, process = fs.UniPC(2), scheduler.grid.process
    assert torch.equal(scheduler.grid.times, fs.grids.optimized(process, solver, 5, error_power=2.0, end="zero").times)
    first = scheduler.grid
    scheduler.set_timesteps(5)
    assert scheduler.grid is first and belongs(scheduler)


def test_optimized_on_a_flow():
    scheduler = FewStepScheduler(**FLOW, grid="optimized")
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.25, 4))
    assert len(scheduler.timesteps) == 4 and belongs(scheduler) and scheduler.sigmas[-1] == 0

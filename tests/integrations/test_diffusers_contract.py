"""What diffusers asks of every scheduler, in our words."""

from __future__ import annotations

import copy
import inspect
import itertools
import json

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerOutput
from support.scheduler_models import FLOW, noise

from fewstep.errors import InputError
from fewstep.integrations.diffusers import FewStepScheduler

TRAINED = {"num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
CONFIGS = {
    "default": TRAINED,
    "order 3": {**TRAINED, "solver_order": 3, "final_sigmas_type": "sigma_min"},
    "sa": {**TRAINED, "solver": "sa", "tau": 0.7, "tau_window": [0.05, 5.0]},
    "deis": {**TRAINED, "solver": "deis", "prediction_type": "v_prediction"},
    "flow": FLOW,
    "flow karras": {**FLOW, "use_karras_sigmas": True},
    "thresholding": {**TRAINED, "thresholding": True, "prediction_type": "sample"},
    "edm": {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0},
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def config(request):
    return request.param


def sample(*shape, dtype=torch.float32):
    return noise(*(shape or (4, 3, 8, 8)), dtype=dtype).abs()


def some_steps(scheduler, x, count=4, start=0, **call):
    for t in scheduler.timesteps[start : start + count]:
        x = scheduler.step(0.1 * x, t, x, **call).prev_sample
    return x


def test_saved_and_loaded_ones_step_alike(config, tmp_path):
    scheduler = FewStepScheduler(**config)
    scheduler.save_config(tmp_path)
    loaded = FewStepScheduler.from_pretrained(tmp_path)
    for one in (scheduler, loaded):
        one.set_timesteps(25)
    torch.testing.assert_close(some_steps(scheduler, sample()), some_steps(loaded, sample()), rtol=0, atol=0)


def test_the_saved_file_is_the_config(config, tmp_path):
    scheduler = FewStepScheduler(**config)
    scheduler.save_pretrained(tmp_path)
    loaded = FewStepScheduler.from_pretrained(tmp_path)
    saved = {key: value for key, value in scheduler.config.items() if key != "_use_default_values"}
    assert saved == loaded.config
    written = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert set(inspect.signature(FewStepScheduler.__init__).parameters) - {"self"} <= set(written)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_compatible_scheduler_and_back():
    scheduler = FewStepScheduler(**TRAINED, solver="sa", grid="karras", tau=0.5)
    names = {scheduler_class.__name__ for scheduler_class in scheduler.compatibles}
    assert names >= {member.name for member in KarrasDiffusionSchedulers} - {"DPMSolverSDEScheduler"}
    for compatible in scheduler.compatibles:
        other = compatible.from_config(scheduler.config)
        back = FewStepScheduler.from_config(other.config)
        assert {key: back.config[key] for key in scheduler.config} == dict(scheduler.config)
        assert not set(back.config) - set(scheduler.config) & set(inspect.signature(FewStepScheduler).parameters)


def test_trained_betas_survive(tmp_path):
    scheduler = FewStepScheduler(**TRAINED, trained_betas=np.array([0.1, 0.3]))
    scheduler.save_pretrained(tmp_path)
    assert FewStepScheduler.from_pretrained(tmp_path).betas.tolist() == scheduler.betas.tolist()
    torch.testing.assert_close(scheduler.betas, torch.tensor([0.1, 0.3]))


def test_public_face(config):
    scheduler = FewStepScheduler(**config)
    assert scheduler.order == 1 and len(scheduler) == 1000
    assert scheduler.begin_index is None and scheduler.step_index is None
    assert scheduler.scale_model_input(sample(), 0.0).shape == sample().shape if "sigma_data" not in config else True
    assert scheduler.alphas_cumprod.shape == scheduler.betas.shape == (1000,)
    assert not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(FewStepScheduler.__init__).parameters.values())
    assert list(inspect.signature(scheduler.step).parameters) == [
        "model_output",
        "timestep",
        "sample",
        "generator",
        "return_dict",
        "eta",
        "use_clipped_model_output",
        "per_token_timesteps",
    ]
    assert {"timesteps", "sigmas", "mu"} <= set(inspect.signature(scheduler.set_timesteps).parameters)


def test_step_keeps_the_shape(config):
    scheduler = FewStepScheduler(**config)
    scheduler.set_timesteps(25)
    scheduler.model_outputs = [sample()] * scheduler.config.solver_order
    first = scheduler.step(0.1 * sample(), scheduler.timesteps[5], sample()).prev_sample
    second = scheduler.step(0.1 * sample(), scheduler.timesteps[6], first).prev_sample
    assert first.shape == second.shape == sample().shape
    assert scheduler.step_index == 7


def test_tuple_and_output_hold_the_same(config):
    results = []
    for return_dict in (True, False):
        scheduler = FewStepScheduler(**config)
        scheduler.set_timesteps(10)
        results.append(scheduler.step(0.1 * sample(), scheduler.timesteps[0], sample(), return_dict=return_dict))
    assert isinstance(results[0], SchedulerOutput) and isinstance(results[1], tuple)
    assert torch.equal(results[0].prev_sample, results[1][0])


@pytest.mark.parametrize("timestep", [0, 1, 0.0, torch.tensor(0)])
def test_a_timestep_that_is_not_in_the_schedule_is_the_nearest(timestep):
    scheduler = FewStepScheduler(**TRAINED)
    scheduler.set_timesteps(25)
    scheduler.step(0.1 * sample(), timestep, sample())
    assert scheduler.step_index == 25


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10, 50, 100, 999, 1000])
@pytest.mark.parametrize("config", [CONFIGS["default"], CONFIGS["order 3"], CONFIGS["flow"], CONFIGS["sa"]])
def test_any_number_of_steps(steps, config):
    scheduler = FewStepScheduler(**config)
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == scheduler.num_inference_steps == steps == len(scheduler.sigmas) - 1
    assert bool((scheduler.timesteps.diff() < 0).all())
    out = some_steps(scheduler, sample(), 2, start=max(0, steps - 2))
    assert bool(torch.isfinite(out).all())


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("trained", [10, 25, 1100])
def test_any_number_of_training_steps(spacing, trained):
    scheduler = FewStepScheduler(**{**TRAINED, "num_train_timesteps": trained}, timestep_spacing=spacing)
    scheduler.set_timesteps(10)
    assert bool(torch.isfinite(some_steps(scheduler, sample(), 10)).all())


FLAGS = ["use_karras_sigmas", "use_beta_sigmas", "use_exponential_sigmas", "use_lu_lambdas", "rescale_betas_zero_snr"]


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "flow_prediction"])
@pytest.mark.parametrize("flow", [False, True])
def test_settings_combine(flag, prediction, flow):
    for final, spacing in itertools.product(("zero", "sigma_min"), ("linspace", "leading", "trailing")):
        settings = {flag: True, "use_flow_sigmas": flow, "prediction_type": prediction, "timestep_spacing": spacing}
        scheduler = FewStepScheduler(**TRAINED, **settings, final_sigmas_type=final, steps_offset=1)
        scheduler.set_timesteps(9)
        assert bool(torch.isfinite(some_steps(scheduler, sample(), 9)).all())


def test_half_precision_stays(config):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        scheduler = FewStepScheduler(**config)
        scheduler.set_timesteps(10)
        out = some_steps(scheduler, sample(dtype=dtype), 10)
        assert out.dtype == dtype and bool(torch.isfinite(out).all())


@pytest.mark.parametrize("shape", [(4, 3, 8), (2, 16, 6), (2, 3, 2, 4, 4)])
def test_data_of_any_shape(config, shape):
    scheduler = FewStepScheduler(**config)
    scheduler.set_timesteps(5)
    assert some_steps(scheduler, sample(*shape), 5).shape == shape


def test_memory_format_does_not_matter():
    x, results = sample(), []
    for given in (x, x.to(memory_format=torch.channels_last)):
        scheduler = FewStepScheduler(**TRAINED)
        scheduler.set_timesteps(6)
        results.append(some_steps(scheduler, given, 6))
    assert torch.equal(*results)


@pytest.mark.parametrize("limit", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_thresholding_is_that_of_diffusers(limit, prediction):
    settings = {**TRAINED, "thresholding": True, "sample_max_value": limit, "prediction_type": prediction}
    ours, theirs = FewStepScheduler(**settings), diffusers.UniPCMultistepScheduler(**settings)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(6)
    torch.testing.assert_close(some_steps(ours, 3 * sample(), 6), some_steps(theirs, 3 * sample(), 6))


def test_clip_sample_bounds_the_result():
    scheduler = FewStepScheduler(**TRAINED, clip_sample=True, clip_sample_range=0.5, prediction_type="sample")
    scheduler.set_timesteps(4)
    x = sample()
    for t in scheduler.timesteps:
        x = scheduler.step(9 * sample(), t, x).prev_sample
    assert float(x.abs().max()) <= 0.5 + 1e-6


def test_a_strength_that_leaves_no_step_is_named():
    scheduler = FewStepScheduler(**TRAINED)
    scheduler.set_timesteps(1)
    with pytest.raises(InputError, match="strength"):
        scheduler.add_noise(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), scheduler.timesteps[1:])


def test_a_flow_may_have_been_trained_on_one_index():
    """As AceStep's, whose pipeline hands over its levels."""
    levels = [1.0, 0.7, 0.3]
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1)
    theirs.set_timesteps(sigmas=levels)
    scheduler = FewStepScheduler.from_config(theirs.config)
    scheduler.set_timesteps(sigmas=levels)
    torch.testing.assert_close(scheduler.timesteps, theirs.timesteps, rtol=1e-5, atol=0.0)
    with pytest.raises(InputError, match="only a flow may have one"):
        FewStepScheduler(num_train_timesteps=1)


def test_add_noise_takes_one_timestep_for_all_or_one_for_each():
    scheduler = FewStepScheduler(**TRAINED)
    x, eps = sample(), noise(4, 3, 8, 8, seed=1)
    # Read off float32's ᾱ, the small σ of index 0 would lose half of its digits.
    betas = torch.linspace(scheduler.config.beta_start, scheduler.config.beta_end, 1000, dtype=torch.float64)
    kept = (1 - betas).cumprod(0)[[5, 400, 999, 0]].view(4, 1, 1, 1)
    each = scheduler.add_noise(x, eps, torch.tensor([5, 400, 999, 0]))
    torch.testing.assert_close(each, (kept.sqrt() * x + (1 - kept).sqrt() * eps).float())
    scheduler.set_timesteps(100)
    assert scheduler.add_noise(x, eps, scheduler.timesteps[5][None]).shape == x.shape
    assert scheduler.add_noise(x.half(), eps.half(), scheduler.timesteps[5]).dtype == torch.float16


def test_attributes_behave_like_any_schedulers():
    scheduler = FewStepScheduler(**TRAINED)
    scheduler.dummy_attribute = 5
    scheduler.register_to_config(test_attribute=5)
    assert scheduler.dummy_attribute == 5
    with pytest.warns(FutureWarning):
        assert scheduler.test_attribute == 5
    with pytest.raises(AttributeError, match="'FewStepScheduler' object has no attribute 'does_not_exist'"):
        _ = scheduler.does_not_exist


def test_copies_run_on_alone():
    scheduler = FewStepScheduler(**CONFIGS["sa"])
    scheduler.set_timesteps(6)
    x = some_steps(scheduler, sample(), 3)
    twin = copy.deepcopy(scheduler)
    assert torch.equal(some_steps(scheduler, x, 3, start=3), some_steps(twin, x, 3, start=3))


def test_switching_through_other_schedulers_changes_nothing():
    scheduler = FewStepScheduler(**TRAINED, solver_order=2)
    before = some_steps_of(scheduler)
    for name in ("DPMSolverSinglestepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler"):
        scheduler = getattr(diffusers, name).from_config(scheduler.config)
    assert torch.equal(before, some_steps_of(FewStepScheduler.from_config(scheduler.config)))


def some_steps_of(scheduler):
    scheduler.set_timesteps(10)
    return some_steps(scheduler, sample(), 10)


def test_steps_before_and_after_the_run_are_refused():
    scheduler = FewStepScheduler(**TRAINED)
    with pytest.raises(InputError, match="call set_timesteps"):
        scheduler.step(sample(), 0, sample())
    scheduler.set_timesteps(3)
    some_steps(scheduler, sample(), 3)
    with pytest.raises(InputError, match="once more than the 3 steps"):
        scheduler.step(sample(), scheduler.timesteps[-1], sample())


def test_a_run_keeps_its_shape():
    scheduler = FewStepScheduler(**TRAINED)
    scheduler.set_timesteps(3)
    some_steps(scheduler, sample(), 1)
    with pytest.raises(InputError, match="the run began with"):
        scheduler.step(sample(2, 3, 8, 8), 0, sample(2, 3, 8, 8))
    with pytest.raises(InputError, match="the network's output is"):
        scheduler.step(sample(4, 5, 8, 8), 0, sample())


@pytest.mark.parametrize("begins", [torch.float32, torch.bfloat16])
def test_latents_may_change_their_type_on_the_way(begins):
    other = torch.bfloat16 if begins == torch.float32 else torch.float32
    scheduler, plain = FewStepScheduler(**TRAINED, solver_order=3), FewStepScheduler(**TRAINED, solver_order=3)
    for one in (scheduler, plain):
        one.set_timesteps(8)
    expected = some_steps(plain, sample(), 7)
    half_way = some_steps(scheduler, sample(dtype=begins), 3).to(other)
    got = some_steps(scheduler, half_way, 4, start=3)
    assert got.dtype == other
    off = 4 * torch.finfo(torch.bfloat16).eps  # of four steps or five, one rounding or two each
    torch.testing.assert_close(got.float(), expected, rtol=off, atol=off)


def test_predictions_are_kept_until_the_last_step():
    scheduler = FewStepScheduler(**TRAINED, prediction_type="sample")
    scheduler.set_timesteps(5)
    x = some_steps(scheduler, sample(), 1)
    first = 0.1 * sample()
    assert scheduler.model_outputs[0] is None
    torch.testing.assert_close(scheduler.model_outputs[1], first)
    x = some_steps(scheduler, x, 1, start=1)
    torch.testing.assert_close(scheduler.model_outputs[0], first)
    some_steps(scheduler, x, 3, start=2)
    assert scheduler.model_outputs == [None, None]


def test_a_learned_variance_is_cut_off():
    scheduler, plain = FewStepScheduler(**TRAINED, variance_type="learned_range"), FewStepScheduler(**TRAINED)
    for one in (scheduler, plain):
        one.set_timesteps(3)
    both = torch.cat([0.1 * sample(), 9 * sample()], dim=1)
    t = plain.timesteps[0]
    assert torch.equal(scheduler.step(both, t, sample())[0], plain.step(0.1 * sample(), t, sample())[0])


def test_a_later_start_draws_other_noise_from_the_schedulers_seed():
    drawn = []
    for begin in (0, 3):
        scheduler = FewStepScheduler(**TRAINED, solver="ddim", eta=1.0, seed=5)
        scheduler.set_timesteps(6)
        scheduler.set_begin_index(begin)
        zeros = torch.zeros(1, 4, 32, 32)
        drawn.append(scheduler.step(zeros, scheduler.timesteps[begin], zeros)[0].flatten())
    assert abs(float(torch.corrcoef(torch.stack(drawn))[0, 1])) < 0.06

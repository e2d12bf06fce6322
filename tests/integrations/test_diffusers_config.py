"""Settings, and other schedulers' settings read as ours."""

from __future__ import annotations

import inspect
import json
import logging
import warnings

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from support.rounding import rounding

import fewstep as fs
from fewstep.errors import InputError
from fewstep.integrations.diffusers import FewStepScheduler
from fewstep.integrations.diffusers.one_call import OneCall
from fewstep.integrations.diffusers.origin import config_of

# SD 1.5's, SDXL's, SD 2.1-v's, DiT's, SD3's, Flux's and Wan's scheduler files, in what they say of the model.
STABLE_DIFFUSION = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
OF_NEWER = pytest.mark.skipif(
    "sigma_max" not in inspect.signature(diffusers.UniPCMultistepScheduler.__init__).parameters,
    reason="the UniPC of this diffusers knows no such settings",
)
FLUX = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "_diffusers_version": "0.30.0",
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
}
STABLE_DIFFUSION_3 = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
KARRAS = [m.name for m in KarrasDiffusionSchedulers if m.name not in ("DPMSolverSDEScheduler", "EDMEulerScheduler")]


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("name", KARRAS)
def test_every_karras_scheduler_keeps_its_process(name, saved, tmp_path):
    """Saved files name every setting; a config in memory also knows which ones are only defaults of its class."""
    theirs = getattr(diffusers, name)()
    config = theirs.config
    if saved:
        theirs.save_config(tmp_path)
        config = json.loads((tmp_path / "scheduler_config.json").read_text())
    ours = FewStepScheduler.from_config(config)
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=1e-4, atol=1e-7)
    assert ours.config.prediction_type == theirs.config.prediction_type
    assert not ours.config.use_flow_sigmas


@pytest.mark.filterwarnings("error::UserWarning")
def test_stable_diffusion():
    scheduler = FewStepScheduler.from_config(STABLE_DIFFUSION, solver="sa", grid="karras", tau=0.4)
    assert scheduler.config.solver == "sa" and scheduler.config.tau == 0.4
    assert scheduler.alphas_cumprod[0].item() == pytest.approx(1 - 0.00085, abs=1e-6)
    scheduler.set_timesteps(5)
    assert float(scheduler.sigmas[0]) == pytest.approx(14.6146, abs=1e-3)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"])
def test_a_flow_is_read_as_a_flow(name):
    scheduler = FewStepScheduler.from_config(getattr(diffusers, name)(shift=3.0).config)
    assert scheduler.config.prediction_type == "flow_prediction"
    assert scheduler.config.flow_shift == 3.0
    assert FewStepScheduler.from_config(getattr(diffusers, name)().config).config.flow_shift == 1.0
    assert FewStepScheduler.from_config(scheduler.config).config.flow_shift == 3.0
    assert FewStepScheduler.from_config(scheduler.config, flow_shift=5.0).config.flow_shift == 5.0


@OF_NEWER
@pytest.mark.filterwarnings("error::UserWarning")
def test_flux_takes_its_shift_from_mu():
    scheduler = FewStepScheduler.from_config(FLUX)
    assert scheduler.config.use_dynamic_shifting and scheduler.config.get("base_shift") == 0.5
    with pytest.raises(InputError, match="needs mu"):
        scheduler.set_timesteps(4)
    scheduler.set_timesteps(4, mu=1.15)
    theirs = diffusers.UniPCMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", use_dynamic_shifting=True
    )
    theirs.set_timesteps(4, mu=1.15)
    torch.testing.assert_close(scheduler.sigmas, theirs.sigmas, rtol=1e-6, atol=1e-6)
    linear = FewStepScheduler.from_config(FLUX, time_shift_type="linear")
    linear.set_timesteps(4, mu=3.0)
    assert linear.grid.process == fs.processes.RectifiedFlow(3.0)


def test_a_flow_that_unipc_lost_is_found_again():
    """UniPC.from_config of FlowMatchEuler's config goes on with epsilon prediction; its shift is still there."""
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    lost = diffusers.UniPCMultistepScheduler.from_config(flow.config)
    assert lost.config.prediction_type == "epsilon"
    assert FewStepScheduler.from_config(lost.config).config.flow_shift == 3.0


def test_flow_prediction_alone_means_a_flow():
    scheduler = FewStepScheduler(prediction_type="flow_prediction", flow_shift=3.0)
    scheduler.set_timesteps(4)
    assert scheduler.grid.process == fs.processes.RectifiedFlow(3.0)


@pytest.mark.filterwarnings("error::UserWarning")
def test_saved_schedulers_of_other_classes_load(tmp_path):
    diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(tmp_path / "scheduler")
    scheduler = FewStepScheduler.from_pretrained(tmp_path, subfolder="scheduler", solver="dpmpp")
    assert scheduler.config.flow_shift == 3.0 and scheduler.config.solver == "dpmpp"


def test_sasolvers_orders_become_ours():
    theirs = diffusers.SASolverScheduler(predictor_order=3, corrector_order=4)
    ours = FewStepScheduler.from_config(theirs.config, solver="sa")
    assert (ours.config.solver_order, ours.config.corrector_order) == (3, 4)
    other = FewStepScheduler.from_config(theirs.config, solver="unipc")
    assert (other.config.solver_order, other.config.corrector_order) == (3, None)


@pytest.mark.filterwarnings("error::UserWarning")
def test_edm_networks_are_recognised():
    ours = FewStepScheduler.from_config(diffusers.EDMDPMSolverMultistepScheduler(sigma_max=40.0).config)
    assert ours.config.sigma_data == 0.5
    ours.set_timesteps(4)
    assert ours.grid.process == fs.processes.EDM(0.002, 40.0)
    settings = {"prediction_type": "v_prediction", "timestep_type": "continuous", "sigma_max": 700.0}
    video = diffusers.EulerDiscreteScheduler(**settings, sigma_min=0.002, use_karras_sigmas=True)
    ours = FewStepScheduler.from_config(video.config)
    assert ours.config.sigma_data == 1.0
    for one in (ours, video):
        one.set_timesteps(6)
    assert ours.init_noise_sigma == pytest.approx(float(video.init_noise_sigma), rel=1e-5)
    torch.testing.assert_close(ours.timesteps, video.timesteps, rtol=1e-4, atol=1e-4)


def test_cogvideox_shifts_its_signal():
    theirs = diffusers.CogVideoXDDIMScheduler(rescale_betas_zero_snr=True)
    ours = FewStepScheduler.from_config(theirs.config)
    torch.testing.assert_close(ours.alphas_cumprod[:-1], theirs.alphas_cumprod[:-1].float(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
def test_zero_terminal_snr_is_that_of_diffusers(schedule):
    settings = {"rescale_betas_zero_snr": True, "beta_schedule": schedule, "prediction_type": "v_prediction"}
    ours, theirs = (
        scheduler(**settings).alphas_cumprod for scheduler in (FewStepScheduler, diffusers.UniPCMultistepScheduler)
    )
    # √ᾱ − √ᾱ_T keeps the roundings of √ᾱ, which is a product of 1000 in float32; the last ᾱ is 2⁻²⁴ in diffusers.
    root = FewStepScheduler(beta_schedule=schedule).alphas_cumprod.sqrt()
    off = rounding(2 * 1000, 1.0, torch.float32) * root * theirs.sqrt() + 2.0**-24
    assert bool(((ours - theirs).abs() <= off).all())


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_betas_are_those_of_diffusers(schedule):
    ours, theirs = FewStepScheduler(beta_schedule=schedule), diffusers.DDPMScheduler(beta_schedule=schedule)
    torch.testing.assert_close(ours.betas, theirs.betas, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, "algorithm_type='sde-dpmsolver"),
        ("UniPCMultistepScheduler", {"predict_x0": False}, "predict_x0=False"),
        ("SASolverScheduler", {"tau_func": lambda t: 0.5}, "tau_func"),
        ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, "stochastic_sampling=True"),
        ("DPMSolverMultistepScheduler", {"lambda_min_clipped": -5.1}, "lambda_min_clipped=-5.1"),
        ("LCMScheduler", {"original_inference_steps": 40}, "original_inference_steps=40"),
        ("FlowMatchLCMScheduler", {"upscale_mode": "nearest"}, "does not know upscale_mode='nearest'"),
        pytest.param("UniPCMultistepScheduler", {"sigma_max": 10.0}, "sigma_max=10.0", marks=OF_NEWER),
    ],
)
def test_what_cannot_be_honoured_is_named(name, settings, said, tmp_path):
    theirs = getattr(diffusers, name)(**settings)
    with pytest.warns(UserWarning, match=said.replace("(", r"\(")):
        ours = FewStepScheduler.from_config(theirs.config)
    ours.save_config(tmp_path)


FOREIGN = [
    "CMStochasticIterativeScheduler",
    "DDPMWuerstchenScheduler",
    "IPNDMScheduler",
    "KarrasVeScheduler",
    "LTXEulerAncestralRFScheduler",
    "SCMScheduler",
    "ScoreSdeVeScheduler",
]


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("name", [name for name in FOREIGN if hasattr(diffusers, name)])
def test_schedulers_of_other_processes_are_refused(name, saved, tmp_path):
    theirs = getattr(diffusers, name)()
    config = theirs.config
    if saved:
        theirs.save_config(tmp_path)
        config = json.loads((tmp_path / "scheduler_config.json").read_text())
    with pytest.raises(InputError, match="a process that FewStepScheduler does not know"):
        FewStepScheduler.from_config(config)


STABLE_AUDIO = {
    "sigma_data": 1.0,
    "sigma_min": 0.3,
    "sigma_max": 500,
    "solver_order": 2,
    "solver_type": "midpoint",
    "prediction_type": "v_prediction",
    "sigma_schedule": "exponential",
    "rho": 7.0,
}


@pytest.mark.parametrize(
    "name", [{"_class_name": "CosineDPMSolverMultistepScheduler"}, {"_use_default_values": ["rho"]}]
)
def test_stable_audios_network_is_fed_the_arc_tangent(name):
    """diffusers makes its scheduler only where torchsde is installed: the formulas are its documentation's."""
    ours = FewStepScheduler.from_config({**STABLE_AUDIO, **name})
    ours.set_timesteps(5)
    levels = torch.logspace(np.log10(500), np.log10(0.3), 5, dtype=torch.float64)
    torch.testing.assert_close(ours.sigmas[:-1].double(), levels, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours.timesteps.double(), levels.atan() * 2 / torch.pi, rtol=1e-6, atol=0)
    assert ours.init_noise_sigma == pytest.approx((500**2 + 1) ** 0.5)
    x, output = torch.randn(1, 2, 8), torch.randn(1, 2, 8)
    skip, out = 1.0 / (500**2 + 1), -500 / (500**2 + 1) ** 0.5
    d = skip * x + out * output
    expected = levels[1] / levels[0] * x + (1 - levels[1] / levels[0]) * d
    first = FewStepScheduler.from_config({**STABLE_AUDIO, **name}, solver="euler")
    first.set_timesteps(5)
    made = first.step(output, first.timesteps[0], x).prev_sample
    torch.testing.assert_close(made, expected.float(), rtol=1e-5, atol=1e-5)


def test_exponential_betas_are_shap_es():
    theirs = diffusers.HeunDiscreteScheduler(num_train_timesteps=1024, beta_schedule="exp", prediction_type="sample")
    ours = FewStepScheduler.from_config(theirs.config)
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=1e-4, atol=1e-7)


@OF_NEWER
def test_a_flow_between_given_levels_is_unipcs():
    """Cosmos' settings: Karras' levels of σ/α on a flow."""
    settings = {"use_karras_sigmas": True, "use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    theirs = diffusers.UniPCMultistepScheduler(**settings, sigma_max=200.0, sigma_min=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        ours = FewStepScheduler.from_config(theirs.config)
    for num in (4, 7):
        ours.set_timesteps(num)
        theirs.set_timesteps(num)
        torch.testing.assert_close(ours.sigmas, theirs.sigmas, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flow_shift", 8.0),
        ("final_sigmas_type", "sigma_min"),
        ("grid", "karras"),
        ("solver", "dpmpp"),
        ("solver_order", 1),
    ],
)
def test_what_is_assigned_to_the_config_is_followed(name, value):
    """As every scheduler of diffusers does: people write pipe.scheduler.config.flow_shift = 8."""
    flow = {"prediction_type": "flow_prediction", "flow_shift": 3.0}
    changed, given = FewStepScheduler(**flow), FewStepScheduler(**{**flow, name: value})
    setattr(changed.config, name, value)
    for scheduler in (changed, given):
        scheduler.set_timesteps(5)
    torch.testing.assert_close(changed.sigmas, given.sigmas, rtol=0, atol=0)
    assert changed.solver == given.solver
    changed.config.solver = "nothing"
    with pytest.raises(InputError, match="nothing"):
        changed.set_timesteps(5)


def test_a_class_that_is_not_known_is_judged_by_its_settings():
    with pytest.raises(InputError, match="ScoreSdeVpScheduler belongs to a process"):
        FewStepScheduler.from_config({"_class_name": "ScoreSdeVpScheduler", "beta_min": 0.1, "beta_max": 20})
    ours = FewStepScheduler.from_config(
        {**STABLE_DIFFUSION, "_class_name": ["mine", "Mine"], "prediction_type": "epsilon"}
    )
    assert ours.config.beta_start == 0.00085
    ours = FewStepScheduler.from_config({**STABLE_DIFFUSION, "_class_name": "Mine"})
    assert (ours.config.beta_start, ours.config.prediction_type) == (0.00085, "epsilon")


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize(
    ("name", "settings"),
    [("UnCLIPScheduler", {}), ("RePaintScheduler", {}), ("CogVideoXDPMScheduler", {"clip_sample": True})],
)
def test_a_class_made_of_another_is_known_by_it(name, settings, loaded, tmp_path):
    """Whether it was made here or loaded, which leaves the name of what was saved in the configuration."""
    kind = type("Mine", (getattr(diffusers, name),), {})
    scheduler = kind(**settings)
    if loaded:
        scheduler.save_pretrained(tmp_path)
        scheduler = kind.from_pretrained(tmp_path)
    config = config_of(scheduler)
    assert config["_class_name"] == name
    if name == "CogVideoXDPMScheduler":
        assert not FewStepScheduler.from_config(config).config.clip_sample
    else:
        with pytest.raises(InputError, match=f"{name} belongs to a process"):
            FewStepScheduler.from_config(config)


def test_a_saved_unclip_is_refused(tmp_path):
    diffusers.UnCLIPScheduler().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="UnCLIPScheduler belongs to a process"):
        FewStepScheduler.from_pretrained(tmp_path)


def test_cosmos_is_refused():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
    scheduler.register_to_config(sigma_max=80.0, sigma_min=0.002, sigma_data=1.0, final_sigmas_type="sigma_min")
    with pytest.raises(InputError, match="Cosmos 2"):
        FewStepScheduler.from_config(scheduler.config)


@pytest.mark.parametrize("saved", [False, True])
def test_clipping_is_taken_over_even_where_it_is_a_default(saved, tmp_path):
    def read(theirs):
        if not saved:
            return FewStepScheduler.from_config(theirs.config)
        theirs.save_pretrained(tmp_path)
        return FewStepScheduler.from_pretrained(tmp_path)

    for name in ("DDPMScheduler", "DDIMScheduler"):
        assert read(getattr(diffusers, name)(clip_sample_range=1.5)).config.clip_sample
        assert not read(getattr(diffusers, name)(clip_sample=False)).config.clip_sample
    # CogVideoX has the setting, and never clips its latents.
    assert not read(diffusers.CogVideoXDDIMScheduler()).config.clip_sample


def test_typing_errors_are_errors():
    with pytest.raises(InputError, match="did you mean 'solver'"):
        FewStepScheduler.from_config({}, solvr="sa")
    with pytest.raises(TypeError):
        FewStepScheduler(solvr="sa")
    for settings, said in {
        ("solver", "unipcc"): "did you mean 'unipc'",
        ("grid", "optimised"): "did you mean 'optimized'",
        ("grid", 8): "num_inference_steps",
        ("prediction_type", "v"): "unknown prediction_type",
        ("beta_schedule", "lin"): "did you mean 'linear'",
        ("tau", -1.0): "tau is -1.0",
        ("tau", "one"): "tau is 'one'",
        ("tau_window", (3.0, 1.0)): "σ/α window",
        ("solver_order", 9): "order is 9",
        ("corrector_order", 1): "corrector_order=1",
        ("final_sigmas_type", "zeros"): "unknown final_sigmas_type",
        ("timestep_spacing", "linspaced"): "did you mean 'linspace'",
        ("seed", -1): "seeds are",
        ("clip_sample_range", 0.0): "clip_sample_range is 0.0",
    }.items():
        name, value = settings
        extra = {"solver": "sa"} if name.startswith("tau") else {}
        extra |= {"clip_sample": True} if name.startswith("clip") else {}
        with pytest.raises(InputError, match=said):
            FewStepScheduler(**{name: value}, **extra)
    with pytest.raises(InputError, match="for a folder write from_pretrained"):
        FewStepScheduler.from_config("some/folder")


def test_settings_survive_a_file(tmp_path):
    settings = {"solver": "sa", "tau": 0.3, "tau_window": (0.05, 1), "grid": "karras", "seed": 11, "eta": 0.5}
    scheduler = FewStepScheduler(**settings, disable_corrector=(0, 1))
    scheduler.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = FewStepScheduler.from_pretrained(tmp_path)
    for key, value in settings.items():
        assert loaded.config[key] == (list(value) if isinstance(value, tuple) else value)
    assert loaded.config.disable_corrector == [0, 1]


def test_a_grid_of_ones_own_survives_a_file(tmp_path):
    process = fs.processes.VPDiscrete.from_betas()
    grid = fs.grids.karras(process, 6)
    scheduler = FewStepScheduler(grid=grid.times.tolist())
    scheduler.save_pretrained(tmp_path)
    loaded = FewStepScheduler.from_pretrained(tmp_path)
    loaded.set_timesteps(6)
    assert torch.equal(loaded.grid.times, grid.times)
    with pytest.raises(InputError, match="call with num_inference_steps=6"):
        loaded.set_timesteps(5)


@pytest.mark.parametrize("kind", [FewStepScheduler, OneCall], ids=lambda kind: kind.__name__)
def test_what_pipelines_alone_read_is_carried_without_a_warning(kind):
    """diffusers warns of settings that a constructor does not know, and calls them ignored."""
    first = FewStepScheduler.from_config({**STABLE_DIFFUSION_3, "base_shift": 0.25})
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    log = logging.getLogger("diffusers.configuration_utils")
    log.addHandler(handler)
    try:
        again = kind.from_config(config_of(first))
    finally:
        log.removeHandler(handler)
    assert not said
    assert (again.config["shift"], again.config["base_shift"], again.config["flow_shift"]) == (3.0, 0.25, 3.0)

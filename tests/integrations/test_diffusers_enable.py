"""fs.enable, fs.summary and fs.disable."""

from __future__ import annotations

import copy
import gc
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import diffusers
import pytest
import torch
from support import tiny_pipelines as tiny
from support import tiny_transformer_pipelines as newer
from torch._subclasses.fake_tensor import FakeTensorMode

import fewstep as fs
from fewstep.errors import InputError
from fewstep.integrations.diffusers import FewStepScheduler, stopwatch

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
MAKERS = [tiny.stable_diffusion, tiny.dit, tiny.flux]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_enabled_and_back(make, tmp_path):
    pipe, call = make()
    scheduler, pipeline_class = pipe.scheduler, type(pipe)
    before = tiny.run(pipe, call, steps=2)
    assert fs.enable(pipe, steps=3, grid="karras") is pipe
    assert isinstance(pipe.scheduler, FewStepScheduler) and isinstance(pipe, pipeline_class)
    assert type(pipe).__name__ == pipeline_class.__name__
    pipe(**call, output_type="latent")
    assert pipe.scheduler.num_inference_steps == 3
    pipe(**call, num_inference_steps=2, output_type="latent")
    assert pipe.scheduler.num_inference_steps == 2
    pipe.save_pretrained(tmp_path)
    fs.disable(pipe)
    assert pipe.scheduler is scheduler and type(pipe) is pipeline_class and "_fewstep" not in vars(pipe)
    assert torch.equal(before, tiny.run(pipe, call, steps=2))
    assert fs.disable(pipe) is pipe
    absent = {name: None for name, part in pipe.components.items() if part is None}
    assert isinstance(pipeline_class.from_pretrained(tmp_path, **absent).scheduler, FewStepScheduler)


@pytest.mark.parametrize("steps", [8, None])
@pytest.mark.parametrize("solver", ["heun", "sa:tau=0.5", fs.SASolver(tau=0.5, mode="PECE")], ids=str)
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_solver_that_cannot_be_stepped_is_refused_at_once(make, solver, steps):
    pipe, _ = make()
    scheduler = pipe.scheduler
    with pytest.raises(InputError, match="few-step form of SA-Solver, as 'sa:few_step=True,tau=0.5'"):
        fs.enable(pipe, steps, solver=solver)
    assert pipe.scheduler is scheduler and "_fewstep" not in vars(pipe)


@pytest.mark.parametrize("settings", [{}, {"final_sigmas_type": "sigma_min"}], ids=str)
@pytest.mark.parametrize("steps", [1, 8])
@pytest.mark.parametrize("solver", ["ddim:eta=1", "deis", "sa:few_step=True,tau=0.5"])
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_solver_that_can_be_stepped_is_taken(make, solver, steps, settings):
    pipe, call = make()
    fs.enable(pipe, steps, solver=solver, **settings)
    tiny.run(pipe, call, steps=steps)
    assert len(pipe.scheduler.timesteps) == steps


def test_a_step_that_is_a_formula_alone_is_refused_with_a_sentence():
    pipe, call = tiny.stable_diffusion()
    fs.enable(pipe, 1, solver="unipc:analytic_first=True")
    with pytest.raises(InputError, match="does not call the network: give more steps"):
        tiny.run(pipe, call, steps=1)


def test_without_a_number_the_pipelines_own_stays():
    pipe, call = tiny.stable_diffusion()
    fs.enable(pipe, grid="karras")
    pipe.set_progress_bar_config(disable=True)
    pipe(**call, output_type="latent", guidance_scale=1.0)
    assert pipe.scheduler.num_inference_steps == 50


def test_the_summary_says_what_happened():
    pipe, call = tiny.stable_diffusion()
    with pytest.raises(InputError, match=r"fs.enable\(pipe, steps=8\)"):
        fs.summary(pipe)
    fs.enable(pipe, steps=3, solver="sa", grid="karras", tau=0.4)
    assert "no call yet" in str(fs.summary(pipe))
    tiny.run(pipe, call, steps=3)
    summary = fs.summary(pipe)
    assert summary.calls == {"unet": 3} and summary.steps == 3
    assert summary.network_seconds > 0 and summary.other_seconds > 0
    assert summary.timesteps == pipe.scheduler.timesteps.tolist() and summary.sigmas[-1] == 0
    text = str(summary)
    assert "SASolver(predictor_order=2" in text and "3 of unet" in text and "s in the network" in text
    assert f"999 → {summary.sigmas[0]:.4g}" in text


def test_a_scheduler_put_in_by_hand_has_a_summary_too():
    pipe, call = tiny.dit()
    pipe.scheduler = FewStepScheduler.from_config(pipe.scheduler.config)
    tiny.run(pipe, call, steps=2)
    summary = fs.summary(pipe)
    assert summary.steps == 2 and summary.calls is None and "last call: 2 steps" in str(summary)


def test_settings_go_to_the_scheduler():
    pipe, _ = tiny.stable_diffusion()
    fs.enable(pipe, solver="dpmpp", grid="beta", solver_order=3)
    config = pipe.scheduler.config
    assert (config.solver, config.grid, config.solver_order) == ("dpmpp", "beta", 3)
    fs.enable(pipe, 4, solver="deis", grid="karras")
    assert pipe.scheduler.config.solver == "deis"
    fs.disable(pipe)
    assert isinstance(pipe.scheduler, diffusers.PNDMScheduler)


def test_recommendations_by_family():
    expected = {
        tiny.stable_diffusion: ("optimized:spectrum=latents,floor=0.0045", 2),
        tiny.dit: ("optimized:spectrum=latents,floor=0.0045", 2),
        tiny.flux: ("simple", 2),
        tiny.wan: ("simple", 2),
    }
    for make, (grid, order) in expected.items():
        config = fs.enable(make()[0]).scheduler.config
        assert (config.solver, config.grid, config.error_power, config.solver_order) == ("unipc", grid, None, order)
    for steps, order in ((None, 3), (10, 3), (9, 2), (5, 2)):
        config = fs.enable(pixels(), steps=steps).scheduler.config
        assert (config.grid, config.error_power, config.solver_order) == ("optimized", None, order)


def test_a_spectrum_of_ones_own(tmp_path):
    pipe, call = tiny.stable_diffusion()
    fs.spectra.Spectrum.power_law(1.5, (4, 8, 8)).save(tmp_path / "own.json")
    spec = f"optimized:spectrum={tmp_path / 'own.json'}"
    fs.enable(pipe, 4, grid=spec)
    tiny.run(pipe, call, steps=4)
    grid = pipe.scheduler.grid
    assert grid == fs.grids.named(spec, grid.process, 4, "zero", solver=fs.UniPC(2))
    fs.spectra.Spectrum.power_law(1.5, (3, 8, 8)).save(tmp_path / "own.json")
    with pytest.raises(InputError, match=r"\(3, 8, 8\), the model's have \(4, 8, 8\)"):
        fs.enable(pipe, 4, grid=spec)


def test_a_scheduler_of_ones_own_keeps_its_settings():
    pipe, _ = tiny.dit()
    pipe.scheduler = own = FewStepScheduler.from_config(pipe.scheduler.config, solver="sa", tau=0.3, grid="karras")
    config = fs.enable(pipe, 5, grid="beta").scheduler.config
    assert (config.solver, config.tau, config.grid) == ("sa", 0.3, "beta")
    assert fs.disable(pipe).scheduler is own


def test_a_grid_of_ones_own():
    pipe, call = tiny.dit()
    process = FewStepScheduler.from_config(pipe.scheduler.config).formulation.process
    grid = fs.grids.karras(process, 3)
    fs.enable(pipe, grid=grid)
    pipe.set_progress_bar_config(disable=True)
    pipe(**call)
    assert torch.equal(pipe.scheduler.grid.times, grid.times)
    assert "grid     3 given" in str(fs.summary(pipe))
    with pytest.raises(InputError, match="the grid is of EDM"):
        fs.enable(pipe, grid=fs.grids.karras(fs.processes.EDM(), 3))
    with pytest.raises(InputError, match="the grid is of VPDiscrete"):
        fs.enable(pipe, grid=fs.grids.karras(fs.processes.VPDiscrete.from_betas(0.0002, 0.02), 3))


def test_a_grid_of_the_same_process_in_other_words():
    pipe, _ = tiny.dit()
    rounded = fs.processes.VPDiscrete(pipe.scheduler.alphas_cumprod)  # In float32.
    assert len(fs.enable(pipe, grid=fs.grids.karras(rounded, 3)).scheduler.config.grid) == 4
    with pytest.raises(InputError, match="the grid is of EDM"):
        video = pixels()
        video.scheduler = diffusers.EDMEulerScheduler(sigma_max=700.0)
        fs.enable(video, grid=fs.grids.karras(fs.processes.EDM(), 3))
    flow, _ = tiny.flux()
    grid = fs.grids.uniform_time(fs.processes.RectifiedFlow(2.0), 3)
    assert fs.enable(flow, grid=grid).scheduler.config.grid == grid.times.tolist()


def test_skip_tuning_comes_and_goes():
    pipe, call = tiny.stable_diffusion()
    fs.enable(pipe, grid="karras")
    plain = tiny.run(pipe, call, steps=2)
    fs.enable(pipe, grid="karras", skip=0.5)
    assert "with Skip-Tuning" in str(fs.summary(pipe))
    tuned = tiny.run(pipe, call, steps=2)
    assert not torch.allclose(tuned, plain, atol=1e-4)
    fs.enable(pipe, grid="karras", skip=fs.skip.Profile(bottom=0.5))
    assert torch.equal(tiny.run(pipe, call, steps=2), tuned)
    fs.enable(pipe, grid="karras")
    assert torch.equal(tiny.run(pipe, call, steps=2), plain)


def test_skip_tuning_over_sigma():
    pipe, call = tiny.stable_diffusion()
    results = []
    for window in ((None, None), (1e-4, 1e3), (500.0, None)):
        fs.enable(pipe, grid="karras", skip=fs.skip.Profile(rho=0.5, sigma_window=window))
        results.append(tiny.run(pipe, call, steps=2))
    fs.enable(pipe, grid="karras")
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(results[2], tiny.run(pipe, call, steps=2))
    assert not torch.allclose(results[0], results[2], atol=1e-4)


def pixels():
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )
    return diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler())


def test_ddims_pipeline_passes_eta():
    pipe = fs.enable(pixels(), 3, solver="ddim", eta=0.5)
    pipe.set_progress_bar_config(disable=True)
    for eta in (0.0, 0.5):
        assert len(pipe(eta=eta).images) == 1
    with pytest.warns(UserWarning, match="solver='ddim', eta=0.3"):
        pipe(eta=0.3)
    with pytest.raises(InputError, match="leave it out"):
        pipe(use_clipped_model_output=True)


def test_a_combined_pipeline_steps_with_it_inside():
    movq = diffusers.VQModel(block_out_channels=(8,), norm_num_groups=4)
    nothing = dict.fromkeys(
        (
            "prior_prior",
            "prior_image_encoder",
            "prior_text_encoder",
            "prior_tokenizer",
            "prior_scheduler",
            "prior_image_processor",
        )
    )
    scheduler = diffusers.DDPMScheduler()
    pipe = diffusers.KandinskyV22CombinedPipeline(tiny.unet(), scheduler, movq, **nothing)
    fs.enable(pipe, grid="karras")
    assert isinstance(pipe.scheduler, FewStepScheduler) and pipe.decoder_pipe.scheduler is pipe.scheduler
    assert pipe.prior_pipe.scheduler is None
    pipe.scheduler = diffusers.DDIMScheduler()
    fs.disable(pipe)
    assert pipe.decoder_pipe.scheduler is pipe.scheduler is scheduler


def test_two_threads_share_a_network():
    (one, call), (two, _) = tiny.stable_diffusion(), tiny.stable_diffusion()
    two.unet = one.unet
    for pipe, steps in ((one, 3), (two, 5)):
        fs.enable(pipe, steps, grid="karras")
    expected = [tiny.run(pipe, call, steps=steps) for pipe, steps in ((one, 3), (two, 5))]
    with ThreadPoolExecutor(2) as threads:
        runs = [
            threads.submit(lambda pipe, steps: [tiny.run(pipe, call, steps=steps) for _ in range(4)], pipe, steps)
            for pipe, steps in ((one, 3), (two, 5))
        ]
    for run, latents in zip(runs, expected, strict=True):
        assert all(torch.equal(found, latents) for found in run.result())
    assert [fs.summary(pipe).calls for pipe in (one, two)] == [{"unet": 3}, {"unet": 5}]
    assert not hooks_of(one.unet)


def test_a_call_is_timed_where_its_tensors_are():
    """Offloading brings a network to the GPU inside of its call: what it is given is there before."""
    network, here = torch.nn.Linear(2, 2), torch.ones(1, 2)
    with FakeTensorMode(allow_non_fake_inputs=True):
        there = torch.empty(1, 2, device="cuda")
    assert stopwatch._device_of(network, (3, there, here)) == torch.device("cuda", 0)
    assert stopwatch._device_of(network, (3, here)) is None


class Network(torch.nn.Module):
    """Its forward is not torch's own, which is never compiled."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.linear(x).tanh()


def hooks_of(network):
    return [*network._forward_pre_hooks.values(), *network._forward_hooks.values()]


def timed(network, x, seconds=0.01):
    """The counts and the time of three calls, each longer than ``seconds``."""
    slow = network.register_forward_hook(torch.compiler.disable(lambda module, given, output: time.sleep(seconds)))
    with stopwatch.Stopwatch({"network": network}) as watch:
        for _ in range(3):
            network(x)
    slow.remove()
    assert watch.calls == {"network": 3} and 3 * seconds <= watch.network_seconds <= watch.seconds
    assert not hooks_of(network)


@pytest.mark.parametrize("in_place", [True, False], ids=["module.compile()", "torch.compile(module)"])
@pytest.mark.parametrize("guarded", [True, False])
def test_a_compiled_network_is_timed_and_compiled_once(in_place, guarded):
    """Whether it is first called inside the stopwatch or outside, and though dynamo should watch hooks."""
    for first_outside in (True, False):
        torch.compiler.reset()
        graphs = []

        def backend(graph, inputs, graphs=graphs):
            graphs.append(graph)
            return graph.forward

        network, x = Network(), torch.ones(1, 2)
        expected = network(x)
        if in_place:
            network.compile(backend=backend, fullgraph=True)
        else:
            network = torch.compile(network, backend=backend, fullgraph=True)
        with torch._dynamo.config.patch(skip_nnmodule_hook_guards=not guarded):
            if first_outside:
                network(x)
            for _ in range(3):
                timed(network, x)
            assert torch.equal(network(x), expected) and len(graphs) == 1
    torch.compiler.reset()


def test_a_network_that_fails_is_timed_no_longer():
    network, x = Network(), torch.ones(1, 2)
    with stopwatch.Stopwatch({"network": network}) as watch:
        with pytest.raises(RuntimeError, match="shapes"):
            network(torch.ones(1, 3))
        network(x)
    assert watch.calls == {"network": 2} and not hooks_of(network)


def test_a_network_compiled_or_copied_during_a_call_is_counted_once():
    torch.compiler.reset()
    network, x = Network(), torch.ones(1, 2)
    with stopwatch.Stopwatch({"network": network}) as first:
        network(x)
        network.compile(backend="eager")
        network(x)
        copied = copy.deepcopy(network)
        copied(x)
    with stopwatch.Stopwatch({"network": network, "copied": copied}) as watch:
        network(x)
        copied(x)
        copied(x)
    assert first.calls == {"network": 2} and watch.calls == {"network": 1, "copied": 2}
    assert not hooks_of(network)
    torch.compiler.reset()


def test_above_sixty_steps_the_summary_says_where_they_are():
    pipe, call = tiny.stable_diffusion()
    fs.enable(pipe, 2, grid="optimized")
    tiny.run(pipe, call, steps=2)
    assert "grid     optimized\n" in str(fs.summary(pipe))
    pipe.scheduler.set_timesteps(61)
    assert "grid     uniform_logsnr (above 60 steps" in str(fs.summary(pipe))
    grid = pipe.scheduler.grid
    torch.testing.assert_close(grid.times, fs.grids.uniform_logsnr(grid.process, 61, end="zero").times)


def test_the_last_call_keeps_no_network_alive():
    pipe, call = tiny.stable_diffusion()
    fs.enable(pipe, 2, grid="karras")
    tiny.run(pipe, call, steps=2)
    network = weakref.ref(pipe.unet)
    pipe.unet = None
    gc.collect()
    assert network() is None and fs.summary(pipe).calls == {"unet": 2}


def test_a_profile_changed_during_a_run_compiles_nothing_anew(monkeypatch):
    pipe, call = tiny.stable_diffusion()
    handle = fs.skip.tuned(pipe.unet, 0.9)
    monkeypatch.setattr(torch.compiler, "reset", lambda: pytest.fail("every compiled model would be compiled again"))
    fs.enable(pipe, grid="karras")

    def change(pipe, step, timestep, state):
        handle.set(fs.skip.Profile(rho=0.5))
        return state

    tiny.run(pipe, call, steps=2, callback_on_step_end=change)


def test_one_spelling_of_solver_grid_and_skip(tmp_path):
    """Names, names with settings, objects and files give the same samples."""
    pipe, call = tiny.stable_diffusion()
    grid = fs.grids.quadratic_time(fs.enable(pipe).scheduler.formulation.process, 4)
    (tmp_path / "grid.json").write_text(grid.to_json())
    fs.skip.Profile(0.7).save(tmp_path / "skip.json")
    spellings = [
        {"solver": fs.UniPC(3), "grid": grid, "skip": 0.7},
        {"solver": "unipc:order=3", "grid": "quadratic_time", "skip": "0.7", "steps": 4},
        {"solver": "unipc:order=3", "grid": str(tmp_path / "grid.json"), "skip": str(tmp_path / "skip.json")},
        {"solver": "unipc", "solver_order": 3, "grid": tmp_path / "grid.json", "skip": fs.skip.Profile(0.7)},
    ]
    made = [tiny.run(fs.enable(pipe, **spelling), call, steps=4) for spelling in spellings]
    for one in made[1:]:
        torch.testing.assert_close(one, made[0], rtol=0, atol=1e-6)
    fs.disable(pipe)


def test_what_is_wrong_leaves_the_pipeline_alone():
    pipe, _ = tiny.dit()
    scheduler, pipeline_class = pipe.scheduler, type(pipe)
    wrong = [
        ({"solver": "unipcc"}, "did you mean 'unipc'"),
        ({"gird": "karras"}, "unknown setting 'gird'"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": "optimized"}, "write grid='optimized'"),
        ({"solver": fs.SASolver(tau=lambda point: 1.0)}, "tau of sa is .* cannot be saved in words"),
        ({"grid": fs.grids.karras(fs.processes.VPDiscrete.from_betas(), 6), "steps": 8}, "has 6 steps, not 8"),
        ({"grid": "missing.json"}, "missing.json"),
        ({"skip": "missing.json"}, "missing.json"),
        ({"skip": "botom=0.7"}, "did you mean 'bottom'"),
        ({"skip": 0.5}, "skip"),
    ]
    for settings, said in wrong:
        with pytest.raises(InputError, match=said):
            fs.enable(pipe, **settings)
        assert pipe.scheduler is scheduler and type(pipe) is pipeline_class
    with pytest.raises(InputError, match="give a diffusers pipeline"):
        fs.enable(object())


def test_it_composes_with_a_compiled_network_and_a_cache():
    hooks = pytest.importorskip("diffusers.hooks")
    pipe, call = tiny.flux()
    fs.enable(pipe, steps=4)
    plain = tiny.run(pipe, call, steps=4)
    torch.compiler.reset()
    pipe.transformer.compile(backend="eager")
    torch.testing.assert_close(tiny.run(pipe, call, steps=4), plain, rtol=1e-4, atol=1e-5)
    assert fs.summary(pipe).calls == {"transformer": 4}
    pipe.transformer._compiled_call_impl = None
    pipe.transformer.enable_cache(hooks.FirstBlockCacheConfig(threshold=10.0))
    tiny.run(pipe, call, steps=4)
    assert fs.summary(pipe).calls == {"transformer": 4}
    pipe.transformer.disable_cache()
    assert torch.equal(tiny.run(pipe, call, steps=4), plain)
    torch.compiler.reset()


def without_a_count(pipe):
    class WithoutACount(type(pipe)):
        def __call__(self):
            return super().__call__()

    pipe.__class__ = WithoutACount
    return pipe


def test_rho_by_the_number_of_steps():
    pipe, call = tiny.stable_diffusion()
    for given in ({}, {"steps": 12}):
        fs.enable(pipe, grid="karras", skip="auto", **given)
        for steps in (2, 10):
            found = tiny.run(pipe, call, steps=steps)
            rho = fs.skip.for_calls(steps).bottom
            assert f"ρ {rho:.4g} … 1, the rule of arXiv 2402.15170 at {steps} calls" in str(fs.summary(pipe))
            fs.disable(pipe)
            fs.enable(pipe, grid="karras", skip=rho)
            assert torch.equal(tiny.run(pipe, call, steps=steps), found)
            fs.enable(pipe, grid="karras", skip="auto", **given)
    assert "at 12 calls" in str(fs.summary(pipe))
    with pytest.raises(InputError, match="give steps=8"):
        fs.enable(pipe, skip="auto")
    pixel = diffusers.DDIMPipeline(tiny.unet(), diffusers.DDIMScheduler())
    with pytest.raises(InputError, match="give ρ itself"):
        fs.enable(without_a_count(pixel), grid="karras", skip="auto")
    fs.enable(pipe, skip=fs.skip.for_calls(12))
    assert "ρ 0.78 … 1, the rule" in str(fs.summary(pipe))


@pytest.mark.parametrize("grid", ["uniform_time", "optimized"])
def test_a_time_where_two_experts_change(grid):
    pipe, call = newer.wan_22()
    fs.enable(pipe, steps=6, grid=f"{grid}:boundary=experts")
    called = []
    for name in ("transformer", "transformer_2"):
        getattr(pipe, name).register_forward_pre_hook(lambda *_, name=name: called.append(name))
    pipe(**call, output_type="latent")
    summary = fs.summary(pipe)
    assert 875.0 in summary.timesteps and summary.grid == f"{grid}:boundary=0.875"
    above = sum(timestep >= 875.0 for timestep in summary.timesteps)
    assert 0 < above < 6
    assert summary.calls == {"transformer": 2 * above, "transformer_2": 2 * (6 - above)}  # Each twice, for guidance.
    assert all(str(count) in str(summary) for count in summary.calls.values())
    assert called.count("transformer") == 2 * above
    with pytest.raises(InputError, match="this model has no two experts"):
        fs.enable(tiny.wan()[0], steps=6, grid="uniform_time:boundary=experts")
    with pytest.raises(InputError, match="boundary is 'experts': give a time"):
        pipe.scheduler = FewStepScheduler.from_config(pipe.scheduler.config, grid="uniform_time:boundary=experts")
        pipe.scheduler.set_timesteps(6)

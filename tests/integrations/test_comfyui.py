"""Our nodes in a real ComfyUI: graphs through its executor, with tiny models on the CPU.

They run in an environment that has what ComfyUI imports, with ``FEWSTEP_COMFYUI=/path/to/ComfyUI``, and are skipped
without it.
"""

from __future__ import annotations

import copy
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import fewstep as fs

FOLDER = os.environ.get("FEWSTEP_COMFYUI", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="FEWSTEP_COMFYUI does not name a folder of ComfyUI")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "comfyui"

NODES = ("FewstepSampler", "FewstepGrid", "FewstepRecipe", "FewstepSkipTuning")
SCHEDULERS = (
    "simple",
    "sgm_uniform",
    "karras",
    "exponential",
    "ddim_uniform",
    "beta",
    "normal",
    "linear_quadratic",
    "kl_optimal",
)
KINDS = ("sd15", "sd15-v", "sdxl", "sdxl-zsnr", "edm", "sd3", "flux")
FLOWS = ("sd3", "flux")


@pytest.fixture(scope="session")
def comfyui(tmp_path_factory):
    from support.comfyui import boot

    return boot(FOLDER, tmp_path_factory.mktemp("comfyui"), EXAMPLES / "custom_nodes" / "fewstep")


def defaults(comfyui, node: str) -> dict:
    """Return the defaults of a node's inputs, as the browser fills them in."""
    inputs = comfyui.nodes.NODE_CLASS_MAPPINGS[node].INPUT_TYPES()
    given = {**inputs["required"], **inputs.get("optional", {})}
    return {name: options["default"] for name, (_, options) in given.items() if "default" in options}


def ours(comfyui, **settings) -> dict:
    return {"class_type": "FewstepSampler", "inputs": {**defaults(comfyui, "FewstepSampler"), **settings}}


def native(name: str) -> dict:
    return {"class_type": "KSamplerSelect", "inputs": {"sampler_name": name}}


def held(comfyui, kind: str, value) -> dict:
    return {"class_type": comfyui.hold(**{kind: value}), "inputs": {}}


def latents(
    comfyui, kind: str, batch: int = 2, *, empty: bool = True, dtype: torch.dtype = torch.float32, **more
) -> dict:
    channels = comfyui.model(kind).model.latent_format.latent_channels
    shape = (batch, channels, 16, 16)
    made = (
        torch.zeros(shape, dtype=dtype)
        if empty
        else 0.5 * torch.randn(shape, generator=torch.Generator().manual_seed(8))
    )
    return {"samples": made, **more}


class Graph:
    """A graph of SamplerCustomAdvanced nodes on one model."""

    def __init__(self, comfyui, kind: str, *, model=None, cfg: float = 2.0) -> None:
        self.comfyui, self.kind = comfyui, kind
        self.prompt = {
            "model": held(comfyui, "MODEL", model or comfyui.model(kind)),
            "positive": held(comfyui, "CONDITIONING", comfyui.conditioning(kind, 1)),
            "negative": held(comfyui, "CONDITIONING", comfyui.conditioning(kind, 2)),
            "guider": {
                "class_type": "CFGGuider",
                "inputs": {"model": ["model", 0], "positive": ["positive", 0], "negative": ["negative", 0], "cfg": cfg},
            },
        }

    def node(self, name: str, node: dict) -> list:
        self.prompt[name] = node
        return [name, 0]

    def scheduled(self, scheduler: str, steps: int = 5, denoise: float = 1.0) -> dict:
        return {
            "class_type": "BasicScheduler",
            "inputs": {"model": ["model", 0], "scheduler": scheduler, "steps": steps, "denoise": denoise},
        }

    def grid(self, **settings) -> dict:
        given = {**defaults(self.comfyui, "FewstepGrid"), "model": ["model", 0], **settings}
        return {"class_type": "FewstepGrid", "inputs": given}

    def sample(
        self, name: str, sampler: dict, sigmas: dict | list, latent: dict | list | None = None, *, seed=3
    ) -> list:
        """Add a SamplerCustomAdvanced whose result is kept under ``name``; without a seed it adds no noise."""
        noise = {"class_type": "RandomNoise", "inputs": {"noise_seed": seed}}
        if seed is None:
            noise = {"class_type": "DisableNoise", "inputs": {}}
        latent = latents(self.comfyui, self.kind) if latent is None else latent
        inputs = {
            "noise": self.node(f"{name} noise", noise),
            "guider": ["guider", 0],
            "sampler": sampler if isinstance(sampler, list) else self.node(f"{name} sampler", sampler),
            "sigmas": sigmas if isinstance(sigmas, list) else self.node(f"{name} sigmas", sigmas),
            "latent_image": latent
            if isinstance(latent, list)
            else self.node(f"{name} latent", held(self.comfyui, "LATENT", latent)),
        }
        made = self.node(name, {"class_type": "SamplerCustomAdvanced", "inputs": inputs})
        self.keep(name, made)
        return made

    def keep(self, name: str, value: list) -> None:
        self.node(f"keep {name}", {"class_type": "Keep", "inputs": {"value": value, "name": name}})

    def run(self) -> dict:
        kept = self.comfyui.run(self.prompt)
        return {name: value["samples"] if isinstance(value, dict) else value for name, value in kept.items()}


def one_by_one(model):
    """Return the model with its network called on one sample at a time: as a batch its own roundings differ."""

    def call(apply_model, given):
        rows = len(given["input"])

        def row(value, i):
            return value[i : i + 1] if isinstance(value, torch.Tensor) and len(value) == rows else value

        return torch.cat(
            [
                apply_model(
                    row(given["input"], i),
                    row(given["timestep"], i),
                    **{name: row(value, i) for name, value in given["c"].items()},
                )
                for i in range(rows)
            ]
        )

    model.set_model_unet_function_wrapper(call)
    return model


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    assert one.shape == other.shape and bool(torch.isfinite(one).all())
    return float((one - other).abs().max() / other.abs().max())


class TestNodes:
    """What the browser shows."""

    @pytest.mark.parametrize("name", NODES)
    def test_every_node_and_input_is_described(self, comfyui, name):
        node = comfyui.nodes.NODE_CLASS_MAPPINGS[name]
        schema = node.GET_SCHEMA()
        assert schema.description and schema.display_name.startswith("fewstep ") and schema.category
        for given in schema.inputs:
            assert given.tooltip or given.id == "model"
        info = schema.get_v1_info(node)
        assert info.name == name and info.output

    def test_defaults_are_sensible(self, comfyui):
        assert defaults(comfyui, "FewstepSampler")["solver"] == "unipc"
        assert defaults(comfyui, "FewstepGrid") | {"grid": "optimized", "steps": 8} == defaults(comfyui, "FewstepGrid")
        assert set(fs.solvers.NAMES) == set(
            comfyui.nodes.NODE_CLASS_MAPPINGS["FewstepSampler"].INPUT_TYPES()["required"]["solver"][1]["options"]
        )

    def test_ksamplers_lists_have_ours(self, comfyui):
        import comfy.samplers

        assert {f"fewstep_{grid}" for grid in fs.grids.NAMES} <= set(comfy.samplers.KSampler.SCHEDULERS)
        assert {f"fewstep_{solver}" for solver in fs.solvers.NAMES} <= set(comfy.samplers.KSampler.SAMPLERS)
        from fewstep.integrations.comfyui.extension import entrypoint

        before = len(comfy.samplers.SCHEDULER_NAMES), len(comfy.samplers.SAMPLER_NAMES)
        entrypoint()
        assert (len(comfy.samplers.SCHEDULER_NAMES), len(comfy.samplers.SAMPLER_NAMES)) == before


class TestGraphs:
    """Text-to-image graphs, on every kind of model."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_graph_of_our_sampler_and_grid(self, comfyui, kind):
        graph = Graph(comfyui, kind)
        sampler = graph.node("ours", ours(comfyui))
        for name in fs.grids.NAMES:
            graph.sample(name, sampler, graph.grid(grid=name, steps=5, sampler=sampler))
        made = graph.run()
        assert set(made) == set(fs.grids.NAMES)
        assert all(bool(torch.isfinite(x).all()) and float(x.std()) > 0 for x in made.values())

    @pytest.mark.parametrize("kind", ["sd15", "sdxl", "sd3", "flux"])
    def test_ksampler_with_our_names(self, comfyui, kind):
        graph = Graph(comfyui, kind)
        pairs = [(solver, "karras") for solver in fs.solvers.NAMES] + [("euler", grid) for grid in fs.grids.NAMES]
        latent = graph.node("latent", held(comfyui, "LATENT", latents(comfyui, kind, 1)))
        for solver, grid in pairs:
            inputs = {
                "model": ["model", 0],
                "positive": ["positive", 0],
                "negative": ["negative", 0],
                "latent_image": latent,
                "seed": 3,
                "steps": 4,
                "cfg": 2.0,
                "sampler_name": f"fewstep_{solver}",
                "scheduler": "karras" if grid == "karras" else f"fewstep_{grid}",
                "denoise": 1.0,
            }
            graph.keep(f"{solver} {grid}", graph.node(f"{solver} {grid}", {"class_type": "KSampler", "inputs": inputs}))
        made = graph.run()
        assert len(made) == len({f"{solver} {grid}" for solver, grid in pairs})
        assert all(bool(torch.isfinite(x).all()) for x in made.values())

    @pytest.mark.parametrize("solver", sorted(fs.solvers.NAMES))
    @pytest.mark.parametrize("kind", ["sd15", "flux"])
    def test_every_solver_in_every_variant(self, comfyui, kind, solver):
        from fewstep.integrations.comfyui.sampler import VARIANTS_OF

        graph = Graph(comfyui, kind)
        sigmas = graph.node("sigmas", graph.scheduled("simple", 4))
        for variant in ("default", *VARIANTS_OF.get(solver, ())):
            for order in (1, 2, 3):
                graph.sample(f"{variant} {order}", ours(comfyui, solver=solver, variant=variant, order=order), sigmas)
        assert all(bool(torch.isfinite(x).all()) for x in graph.run().values())


class TestAgreement:
    """Our solvers and ComfyUI's own samplers of the same methods."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        ("theirs", "settings"),
        [
            ("euler", {"solver": "euler"}),
            ("ddim", {"solver": "ddim"}),
            ("heun", {"solver": "heun"}),
            ("dpmpp_2m", {"solver": "dpmpp", "order": 2, "levels": "sigma"}),
        ],
    )
    def test_the_same_samples_on_all_its_schedulers(self, comfyui, kind, theirs, settings):
        import comfy.samplers

        graph = Graph(comfyui, kind)
        sampling = comfyui.model(kind).get_model_object("model_sampling")
        # In float64, for at zsnr's σ of 4518 float32 rounds states, and their σ' − σ, by more than what is compared.
        latent = latents(comfyui, kind, 1, dtype=torch.float64)
        for scheduler in SCHEDULERS:
            levels = comfy.samplers.calculate_sigmas(sampling, scheduler, 5).double()
            sigmas = graph.node(scheduler, held(comfyui, "SIGMAS", levels))
            graph.sample(f"{scheduler} ours", ours(comfyui, **settings), sigmas, latent)
            graph.sample(f"{scheduler} theirs", native(theirs), sigmas, latent)
        made = graph.run()
        for scheduler in SCHEDULERS:
            assert apart(made[f"{scheduler} ours"], made[f"{scheduler} theirs"]) < 1e-5, scheduler

    @pytest.mark.parametrize("kind", ["sd15", "sd15-v", "edm", "flux"])
    @pytest.mark.parametrize("pece", [False, True])
    @pytest.mark.parametrize("simple", [False, True])
    @pytest.mark.parametrize("eta", [0.0, 1.0])
    def test_sa_solver_by_its_own_rule_of_orders(self, comfyui, kind, pece, simple, eta):
        """The same noise is fed to both, which draw it otherwise."""
        import comfy.k_diffusion.sa_solver as theirs
        import comfy.k_diffusion.sampling as samplers
        import comfy.sample
        import comfy.samplers

        from fewstep.integrations import kdiffusion
        from fewstep.integrations.comfyui.levels import state_process

        model = comfyui.model(kind)
        sampling = model.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", 9)
        low, high = (float(sampling.percent_to_sigma(percent)) for percent in (0.8, 0.2))

        def fed():
            generator = torch.Generator().manual_seed(5)
            return lambda *_: torch.randn(2, model.model.latent_format.latent_channels, 16, 16, generator=generator)

        def their_sampler(model_k, x, sigmas, extra_args, callback, disable):
            return samplers.sample_sa_solver(
                model_k,
                x,
                sigmas,
                extra_args=extra_args,
                disable=True,
                noise_sampler=fed(),
                predictor_order=3,
                corrector_order=4,
                use_pece=pece,
                simple_order_2=simple,
                tau_func=theirs.get_tau_interval_func(high, low, eta=eta),
            )

        def our_sampler(model_k, x, sigmas, extra_args, callback, disable):
            levels = sigmas.clone()
            if kind in FLOWS:
                # Where λ = −∞ their first level is moved; ours need not be, but is here.
                levels[0], ratio = sampling.percent_to_sigma(1e-4), lambda s: s / (1 - s)
            else:
                ratio = lambda s: s  # noqa: E731
            tau = fs.tau.window(eta, ratio(low), ratio(high))
            solver = fs.SASolver(3, 4, tau=tau, few_step=simple, mode="PECE" if pece else "PEC", orders="comfyui")
            plan = kdiffusion.planned(solver, state_process(sampling), levels)
            return kdiffusion.run(plan, model_k, x, extra_args=extra_args, disable=True, noise_sampler=fed())

        latent = latents(comfyui, kind)["samples"]
        noise = comfy.sample.prepare_noise(latent, 3)
        positive, negative = (comfyui.conditioning(kind, seed) for seed in (1, 2))
        made = [
            comfy.sample.sample_custom(
                model, noise, 2.0, comfy.samplers.KSAMPLER(made), sigmas, positive, negative, latent, seed=3
            )
            for made in (our_sampler, their_sampler)
        ]
        assert apart(*made) < 1e-5

    @pytest.mark.parametrize("kind", ["sd15", "sd15-v"])
    @pytest.mark.parametrize(("theirs", "variant"), [("uni_pc", "bh1"), ("uni_pc_bh2", "bh2")])
    def test_uni_pc_on_its_own_last_sigma(self, comfyui, kind, theirs, variant):
        import comfy.samplers

        graph = Graph(comfyui, kind)
        sampling = comfyui.model(kind).get_model_object("model_sampling")
        levels = comfy.samplers.calculate_sigmas(sampling, "karras", 7)
        levels[-1] = 0.001  # What it puts in place of 0.
        latent = latents(comfyui, kind, 1)
        for name, sampler in (("theirs", native(theirs)), ("ours", ours(comfyui, order=3, variant=variant))):
            graph.sample(name, sampler, held(comfyui, "SIGMAS", levels.clone()), latent)
        made = graph.run()
        # Theirs runs in float32 alone: its coefficients are rounded as the states of size σ = 14.6 are.
        assert apart(made["ours"], made["theirs"]) < 2e-4

    @pytest.mark.parametrize("kind", ["sd15", "edm"])
    def test_dpmpp_2m_sde_is_sa_solver_without_a_corrector(self, comfyui, kind, monkeypatch):
        import comfy.k_diffusion.sampling as samplers
        import comfy.samplers

        from fewstep.integrations.comfyui import sampler as module

        def fed(*_, **__):
            generator = torch.Generator().manual_seed(5)
            return lambda *_: torch.randn(1, 4, 16, 16, generator=generator, dtype=torch.float64)

        monkeypatch.setattr(samplers, "BrownianTreeNoiseSampler", fed)
        monkeypatch.setattr(module, "step_noise", fed)
        graph = Graph(comfyui, kind)
        sampling = comfyui.model(kind).get_model_object("model_sampling")
        levels = held(comfyui, "SIGMAS", comfy.samplers.calculate_sigmas(sampling, "karras", 7).double())
        latent = latents(comfyui, kind, 1, dtype=torch.float64)
        inputs = {"solver_type": "heun", "eta": 0.49, "s_noise": 1.0, "noise_device": "cpu"}
        graph.sample("theirs", {"class_type": "SamplerDPMPP_2M_SDE", "inputs": inputs}, levels, latent)
        whole = {"tau": 0.7, "window_start": 0.0, "window_end": 1.0, "corrector": False}
        own = ours(comfyui, solver="sa", variant="many-step", settings="orders=diffusers", **whole)
        graph.sample("ours", own, levels, latent)
        made = graph.run()
        assert apart(made["ours"], made["theirs"]) < 1e-5


class TestGrid:
    """The levels of fewstep Grid."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_optimized_is_the_recommended_grid_of_latents(self, comfyui, kind):
        from fewstep.integrations.comfyui.levels import process_of
        from fewstep.recommended import optimized_for

        graph = Graph(comfyui, kind)
        graph.keep("default", graph.node("default", graph.grid(steps=6)))
        graph.keep("published", graph.node("published", graph.grid(steps=6, error_power=2.0)))
        made = graph.run()
        process = process_of(comfyui.model(kind).get_model_object("model_sampling"))
        for name, words in (("default", optimized_for(latent=True)), ("published", "optimized:error_power=2")):
            grid = fs.grids.named(words, process, 6, "zero", solver=fs.UniPC(2))
            levels = grid.times if kind in FLOWS else (-grid.half_logsnr).exp()
            torch.testing.assert_close(made[name][1:], levels[1:].to(torch.float32), rtol=1e-6, atol=0.0)
        assert apart(made["default"], made["published"]) > 0.01

    def test_frames_have_the_spectrum_of_video(self, comfyui):
        from fewstep.integrations.comfyui.grid import sigmas_of_grid
        from fewstep.integrations.comfyui.sampler import Choice

        model = comfyui.model("sdxl").clone()
        model.model = copy.copy(model.model)
        model.model.latent_format = copy.copy(model.model.latent_format)
        model.model.latent_format.latent_dimensions = 3
        graph = Graph(comfyui, "sdxl", model=model)
        graph.keep("sigmas", graph.node("sigmas", graph.grid(steps=6)))
        sampling = model.get_model_object("model_sampling")
        video, image = (sigmas_of_grid(sampling, "optimized", 6, Choice(), video=frames) for frames in (True, False))
        assert torch.equal(graph.run()["sigmas"], video)
        assert apart(video, image) > 0.01


class TestStages:
    """Image-to-image, inpainting, split sigmas, batches, and what interrupts them."""

    @pytest.mark.parametrize("kind", ["sd15", "edm", "flux"])
    def test_image_to_image_spends_its_steps_on_the_last_share(self, comfyui, kind):
        graph = Graph(comfyui, kind)
        image = latents(comfyui, kind, empty=False)
        for grid in fs.grids.NAMES:
            sigmas = graph.node(f"{grid} sigmas", graph.grid(grid=grid, steps=4, denoise=0.4))
            graph.keep(f"{grid} levels", sigmas)
            graph.sample(grid, ours(comfyui), sigmas, image)
        made = graph.run()
        sampling = comfyui.model(kind).get_model_object("model_sampling")
        for grid in fs.grids.NAMES:
            levels = made[f"{grid} levels"]
            assert len(levels) == 5 and float(levels[-1]) == 0.0 and levels.dtype == torch.float32
            assert float(levels[0]) == pytest.approx(float(sampling.percent_to_sigma(0.6)), rel=1e-5)
            assert bool(torch.isfinite(made[grid]).all())
        # Less noise leaves more of the image.
        graph = Graph(comfyui, kind)
        for denoise in (0.1, 0.9):
            graph.sample(str(denoise), ours(comfyui), graph.grid(steps=4, denoise=denoise), image)
        made = graph.run()
        assert (made["0.1"] - image["samples"]).norm() < (made["0.9"] - image["samples"]).norm()

    @pytest.mark.parametrize("kind", ["sd15", "flux"])
    @pytest.mark.parametrize("solver", ["unipc", "sa", "heun"])
    def test_inpainting_keeps_what_the_mask_keeps(self, comfyui, kind, solver):
        mask = torch.zeros(1, 1, 16, 16)
        mask[..., :8] = 1.0
        image = latents(comfyui, kind, empty=False, noise_mask=mask)
        graph = Graph(comfyui, kind)
        graph.sample("ours", ours(comfyui, solver=solver), graph.grid(steps=5), image)
        graph.sample("theirs", native("euler"), graph.grid(steps=5), image)
        made = graph.run()
        kept = image["samples"][..., 8:]
        tolerance = 4 * apart(made["theirs"][..., 8:], kept) + 1e-6  # Latents are scaled in and out in float32.
        assert apart(made["ours"][..., 8:], kept) < tolerance
        assert float((made["ours"][..., :8] - image["samples"][..., :8]).abs().max()) > 0.1

    @pytest.mark.parametrize("kind", ["sd15", "edm", "flux"])
    def test_split_sigmas_end_where_they_say_and_go_on(self, comfyui, kind):
        """Two stages of a one-step method are one run; the first state is that of the level it ends at."""
        graph = Graph(comfyui, kind)
        sigmas = graph.node("sigmas", graph.scheduled("simple", 6))
        split = {"class_type": "SplitSigmas", "inputs": {"sigmas": sigmas, "step": 3}}
        graph.node("split", split)
        for name, sampler in (("ours", ours(comfyui, solver="euler")), ("theirs", native("euler"))):
            first = graph.sample(f"{name} first", sampler, ["split", 0])
            graph.sample(f"{name} second", sampler, ["split", 1], first, seed=None)
            graph.sample(f"{name} whole", sampler, sigmas)
        graph.sample("unipc first", ours(comfyui), ["split", 0])
        made = graph.run()
        assert apart(made["ours first"], made["theirs first"]) < 1e-5
        assert apart(made["ours second"], made["ours whole"]) < 1e-5
        assert bool(torch.isfinite(made["unipc first"]).all())

    def test_a_grid_of_two_stages_meets_in_the_middle(self, comfyui):
        graph = Graph(comfyui, "sdxl")
        graph.keep("first", graph.node("first", graph.grid(steps=4, end=0.6)))
        graph.keep("second", graph.node("second", graph.grid(steps=4, start=0.6)))
        made = graph.run()
        assert float(made["first"][-1]) == pytest.approx(float(made["second"][0]), rel=1e-6)
        assert float(made["first"][-1]) > 0 and float(made["second"][-1]) == 0

    @pytest.mark.parametrize("kind", ["sd15", "sdxl", "sd3", "flux"])
    @pytest.mark.parametrize("solver", ["sa", "unipc", "ddim"])
    def test_a_batch_of_four_is_four_single_runs(self, comfyui, kind, solver):
        """A latent's batch_index draws an image's own initial noise alone; the noise of its steps follows it."""
        graph = Graph(comfyui, kind, model=one_by_one(comfyui.model(kind)))
        sampler = graph.node("ours", ours(comfyui, solver=solver, eta=0.7))
        sigmas = graph.node("sigmas", graph.grid(steps=5))
        graph.sample("batch", sampler, sigmas, latents(comfyui, kind, 4))
        for place in range(4):
            graph.sample(str(place), sampler, sigmas, latents(comfyui, kind, 1, batch_index=[place]))
        made = graph.run()
        alone = torch.cat([made[str(place)] for place in range(4)])
        assert torch.equal(made["batch"], alone)
        assert len({tuple(x.flatten()[:4].tolist()) for x in alone}) == 4

    def test_interruption_leaves_no_state_behind(self, comfyui):
        import comfy.model_management
        import comfy.utils

        def run():
            graph = Graph(comfyui, "sd15")
            graph.sample("ours", ours(comfyui, solver="sa"), graph.grid(steps=6))
            return graph.run()["ours"]

        before = run()
        calls = []

        def interrupt(value, total, preview, node_id=None, **_):
            calls.append(value)
            if value == 3:
                comfy.model_management.interrupt_current_processing()
            comfy.model_management.throw_exception_if_processing_interrupted()

        hook = comfy.utils.PROGRESS_BAR_HOOK
        comfy.utils.set_progress_bar_global_hook(interrupt)
        try:
            graph = Graph(comfyui, "sd15")
            graph.sample("ours", ours(comfyui, solver="sa"), graph.grid(steps=6))
            assert "ours" not in comfyui.run(graph.prompt)
        finally:
            comfy.utils.set_progress_bar_global_hook(hook)
        assert calls == [1, 2, 3]
        assert any(event == "execution_interrupted" for event, _ in comfyui.server.sent)
        assert torch.equal(run(), before)

    @pytest.mark.parametrize("solver", ["euler", "unipc", "heun"])
    def test_the_last_denoised_image_is_the_result(self, comfyui, solver):
        """What previews show: at σ = 0 the network's last answer itself."""
        graph = Graph(comfyui, "sd15")
        made = graph.sample("ours", ours(comfyui, solver=solver), graph.scheduled("karras", 5))
        graph.keep("denoised", [made[0], 1])
        kept = graph.run()
        assert apart(kept["ours"], kept["denoised"]) < 1e-6

    def test_progress_and_preview_are_told_each_step(self, comfyui):
        import comfy.utils

        told = []
        hook = comfy.utils.PROGRESS_BAR_HOOK
        comfy.utils.set_progress_bar_global_hook(lambda value, total, *_, **__: told.append((value, total)))
        try:
            for solver in ("unipc", "heun", "sa"):
                graph = Graph(comfyui, "sd15")
                graph.sample("ours", ours(comfyui, solver=solver, variant="default"), graph.grid(steps=5))
                graph.run()
        finally:
            comfy.utils.set_progress_bar_global_hook(hook)
        assert told == 3 * [(step, 5) for step in range(1, 6)]

    @pytest.mark.parametrize("kind", ["sd15", "flux"])
    def test_a_single_sigma_changes_nothing(self, comfyui, kind):
        graph = Graph(comfyui, kind)
        image = latents(comfyui, kind, empty=False)
        one = graph.node("one", held(comfyui, "SIGMAS", torch.tensor([0.4])))
        graph.sample("ours", ours(comfyui), one, image)
        graph.sample("theirs", native("euler"), one, image)
        made = graph.run()
        assert torch.equal(made["ours"], made["theirs"])

    def test_repeated_sigmas_are_steps_of_no_length(self, comfyui):
        graph = Graph(comfyui, "sd15")
        for name, levels in (("plain", [14.6, 3.0, 1.0, 0.0]), ("repeated", [14.6, 3.0, 3.0, 1.0, 0.0])):
            graph.sample(name, ours(comfyui), held(comfyui, "SIGMAS", torch.tensor(levels)))
        made = graph.run()
        assert torch.equal(made["plain"], made["repeated"])

    @pytest.mark.parametrize("kind", ["sd15", "flux"])
    def test_flipped_sigmas_run_towards_noise(self, comfyui, kind):
        """ "Unsampling"; on a flow it ends below σ = 1, where ComfyUI divides the result by 1 − σ."""
        graph = Graph(comfyui, kind, cfg=1.0)
        forth = graph.node("forth", graph.grid(grid="uniform_logsnr", steps=6, start=0.05))
        back = graph.node("back", {"class_type": "FlipSigmas", "inputs": {"sigmas": forth}})
        image = latents(comfyui, kind, empty=False, dtype=torch.float64)
        for name, sampler in {
            "euler": ours(comfyui, solver="euler"),
            "ddim": ours(comfyui, solver="ddim"),
            "unipc": ours(comfyui, solver="unipc"),
            "theirs": native("euler"),
        }.items():
            graph.sample(name, sampler, back, image, seed=None)
        made = graph.run()
        assert apart(made["euler"], made["theirs"]) < 1e-5 and apart(made["ddim"], made["theirs"]) < 1e-5
        assert bool(torch.isfinite(made["unipc"]).all()) and apart(made["unipc"], made["theirs"]) > 1e-3


class TestNoise:
    """The noise of the steps."""

    def drawn(self, comfyui, *, latent=None, seed=3, sigmas=None, **settings):
        """Return ancestral samples of a model without skips for data: their noise, mostly."""
        graph = Graph(comfyui, "sd15")
        levels = graph.grid(steps=4) if sigmas is None else held(comfyui, "SIGMAS", torch.tensor(sigmas))
        graph.sample("ours", ours(comfyui, solver="ddim", eta=1.0, **settings), levels, latent, seed=seed)
        return graph.run()["ours"]

    def test_it_is_the_same_again_and_another_with_another_seed(self, comfyui):
        one = self.drawn(comfyui)
        assert torch.equal(one, self.drawn(comfyui))
        assert not torch.equal(one, self.drawn(comfyui, step_seed=1))
        assert not torch.equal(one, self.drawn(comfyui, seed=4))
        assert torch.equal(one, self.drawn(comfyui, noise_device="gpu"))  # Here the model is on the CPU as well.

    def test_64_bit_seeds_count(self):
        from fewstep.integrations.comfyui.noise import image_seeds

        noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        seeds = [image_seeds(seed, own, noise, 2) for seed in (5, 5 + 2**32) for own in (0, 2**32)]
        assert len({seed for pair in seeds for seed in pair}) == 8

    def test_an_image_is_told_by_its_noise_or_else_its_place(self):
        from fewstep.integrations.comfyui.noise import image_seeds

        noise = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        whole = image_seeds(7, 0, noise, 3)
        assert [image_seeds(7, 0, noise[i : i + 1], 1)[0] for i in range(3)] == whole
        still = image_seeds(7, 0, torch.zeros_like(noise), 3)
        assert len(set(still)) == 3 and still == image_seeds(7, 0, None, 3) and not set(still) & set(whole)

    def test_a_second_stage_does_not_repeat_the_noise_of_the_first(self):
        from fewstep.integrations.comfyui.noise import step_noise

        x = torch.zeros(1, 4, 40, 40)
        drawn = [step_noise(x, [9], level=level, on_cpu=True)(None, None).flatten() for level in (None, 5.0, 0.5)]
        initial = torch.randn(6400, generator=torch.Generator().manual_seed(9))
        correlation = torch.corrcoef(torch.stack([*drawn, initial])) - torch.eye(4)
        assert float(correlation.abs().max()) < 0.06

    def test_each_stage_of_a_split_is_told_its_level(self, comfyui, monkeypatch):
        from fewstep.integrations.comfyui import sampler

        told = []
        step_noise = sampler.step_noise
        monkeypatch.setattr(
            sampler, "step_noise", lambda x, seeds, **how: told.append(how["level"]) or step_noise(x, seeds, **how)
        )
        self.drawn(comfyui)
        self.drawn(comfyui, sigmas=[2.5, 1.0, 0.0])
        assert told == [None, 2.5]


class TestRecipe:
    """Plans that were calibrated outside."""

    def outside(self, comfyui, kind: str):
        """Return the tiny UNet as a denoiser of ours, in the process it was trained on."""
        from fewstep.integrations.comfyui.levels import process_of

        model = comfyui.model(kind)
        sampling = model.get_model_object("model_sampling")
        process = process_of(sampling)
        network, tokens = model.model.diffusion_model, comfyui.conditioning(kind, 1)[0][0]

        def call(x, t):
            return network(x.float(), t, context=tokens.expand(len(x), -1, -1))

        def index(t):
            """The trained level that is nearest in log σ, as ComfyUI rounds."""
            return (sampling.log_sigmas.double() + process.half_logsnr(t)).abs().argmin().double()

        prediction = {"sd15": "epsilon", "sd15-v": "v"}[kind]
        return fs.Denoiser(call, process, prediction, shape=(4, 16, 16), network_time=index)

    @pytest.mark.parametrize("kind", ["sd15", "sd15-v"])
    def test_it_gives_the_same_samples_inside(self, comfyui, kind):
        denoiser = self.outside(comfyui, kind)
        solver = fs.UniPC(2)
        grid = fs.grids.uniform_logsnr(denoiser.process, 5, end="zero")
        recipe = fs.calibrate(denoiser, solver, grid, num=16, reference_steps=12)
        recipe.save(comfyui.work / "models" / "fewstep" / f"{kind}.json")
        graph = Graph(comfyui, kind, cfg=1.0)
        inputs = {"model": ["model", 0], "recipe": f"{kind}.json", "calls": 0, "step_seed": 0}
        graph.node("recipe", {"class_type": "FewstepRecipe", "inputs": inputs})
        graph.sample("inside", ["recipe", 0], ["recipe", 1])
        made = graph.run()["inside"]
        noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
        outside = fs.execute(recipe.plan, denoiser, noise) / 0.18215
        assert apart(made, outside) < 1e-5

    @pytest.fixture()
    def written(self, comfyui):
        """Return what writes an uncalibrated plan as a recipe file, and its name."""

        def write(process, solver=fs.UniPC(2), **grid):  # noqa: B008
            from fewstep.recipe import Recipe

            plan = solver.plan(fs.grids.uniform_logsnr(process, 5, **{"end": "zero", **grid}))
            Recipe(plan).save(comfyui.work / "models" / "fewstep" / "other.json")
            return "other.json"

        return write

    def run(self, comfyui, kind: str, name: str, between: str | None = None, latents=None):
        graph = Graph(comfyui, kind)
        inputs = {"model": ["model", 0], "recipe": name, "calls": 0, "step_seed": 0}
        graph.node("recipe", {"class_type": "FewstepRecipe", "inputs": inputs})
        sigmas = ["recipe", 1]
        if between == "split":
            sigmas = graph.node("split", {"class_type": "SplitSigmas", "inputs": {"sigmas": sigmas, "step": 2}})
        graph.sample("made", ["recipe", 0], sigmas, latents)
        return graph.run()["made"]

    @pytest.mark.parametrize("kind", FLOWS)
    def test_a_flows_recipe_is_for_flows(self, comfyui, written, kind):
        name = written(fs.processes.RectifiedFlow(shift=3.0), start="noise")
        assert bool(torch.isfinite(self.run(comfyui, kind, name)).all())
        with pytest.raises(RuntimeError, match="the model is no flow"):
            self.run(comfyui, "sd15", name)

    def test_another_process_is_refused_with_a_sentence(self, comfyui, written):
        for process, kind, words in [
            (fs.processes.VPDiscrete.from_betas(), "sd15", "1000 levels"),
            (fs.processes.EDM(0.002, 80.0), "sdxl", "from 80 to 0.002, the model's from 14.61"),
            (fs.processes.EDM(0.03, 14.0), "flux", "the model is a flow"),
        ]:
            with pytest.raises(RuntimeError, match=words):
                self.run(comfyui, kind, written(process))

    def test_a_recipe_of_a_book_is_named_by_its_calls(self, comfyui):
        from fewstep.recipe import Recipe, RecipeBook

        process = fs.processes.EDM(0.03, 14.6)
        plans = [fs.UniPC(2).plan(fs.grids.uniform_logsnr(process, steps, end="zero")) for steps in (3, 5)]
        RecipeBook(tuple(map(Recipe, plans))).save(comfyui.work / "models" / "fewstep" / "book.json")
        for calls in (3, 5):
            graph = Graph(comfyui, "sdxl")
            inputs = {"model": ["model", 0], "recipe": "book.json", "calls": calls, "step_seed": 0}
            graph.node("recipe", {"class_type": "FewstepRecipe", "inputs": inputs})
            graph.keep("sigmas", ["recipe", 1])
            assert len(graph.run()["sigmas"]) == calls + 1
        with pytest.raises(RuntimeError, match="one of 3, 5"):
            self.run(comfyui, "sdxl", "book.json")

    @pytest.mark.parametrize("kind", ["sdxl", "flux"])
    def test_inpainting_keeps_what_the_mask_keeps(self, comfyui, kind):
        """Fitted rows and a formula after them would change what is predicted alike at every step."""
        from fewstep.analytic import AnalyticPrediction
        from fewstep.executor import folded, with_last_formula
        from fewstep.recipe import Recipe

        process = fs.processes.EDM(0.03, 14.6) if kind == "sdxl" else fs.processes.RectifiedFlow(shift=3.0)
        start = "noise" if kind == "flux" else None
        plan = folded(fs.UniPC(2).plan(fs.grids.uniform_logsnr(process, 4, end="zero", start=start)))
        plan = replace(plan, fitted=True, history_weights=0.97 * plan.history_weights)
        plan = with_last_formula(plan, AnalyticPrediction(torch.tensor([0.98]), torch.tensor(0.01)))
        Recipe(plan).save(comfyui.work / "models" / "fewstep" / "fitted.json")
        mask = torch.ones(1, 1, 16, 16)
        mask[..., 8:], mask[..., 7] = 0.0, 0.5
        image = latents(comfyui, kind, empty=False, noise_mask=mask)
        made = self.run(comfyui, kind, "fitted.json", latents=image)
        kept = (made - image["samples"])[..., 8:].abs().amax(dim=(0, 1, 2))
        assert float(kept.max()) < 1e-5 * float(image["samples"].abs().max())
        assert float((made - image["samples"])[..., :8].abs().max()) > 0.1

    def test_its_sampler_belongs_to_its_sigmas(self, comfyui, written):
        name = written(fs.processes.EDM(0.03, 14.6))
        assert bool(torch.isfinite(self.run(comfyui, "sdxl", name)).all())
        with pytest.raises(RuntimeError, match="connect both outputs"):
            self.run(comfyui, "sdxl", name, between="split")


class TestSkipTuning:
    """The clone with a patch, and fs.skip.tuned on the network itself."""

    def node(self, **settings) -> dict:
        given = {"model": ["model", 0], "bottom": 0.6, "top": 0.9, "start": 0.0, "end": 1.0, **settings}
        return {"class_type": "FewstepSkipTuning", "inputs": given}

    def sampled(self, comfyui, kind: str, tuning: dict | None):
        graph = Graph(comfyui, kind)
        if tuning is not None:
            graph.prompt["guider"]["inputs"]["model"] = graph.node("tuned", tuning)
        graph.sample("made", ours(comfyui), graph.scheduled("simple", 5))
        return graph.run()["made"]

    @pytest.mark.parametrize("kind", ["sd15", "sdxl"])
    def test_it_is_that_of_the_library_bit_for_bit(self, comfyui, kind):
        plain = self.sampled(comfyui, kind, None)
        patched = self.sampled(comfyui, kind, self.node())
        with fs.skip.tuned(comfyui.model(kind).model.diffusion_model, 0.6, 0.9):
            hooked = self.sampled(comfyui, kind, None)
        assert torch.equal(patched, hooked) and not torch.equal(patched, plain)
        assert torch.equal(self.sampled(comfyui, kind, None), plain)

    def test_so_it_is_in_a_window(self, comfyui):
        from fewstep.integrations.comfyui.levels import process_of, ratio_at

        model = comfyui.model("sd15")
        sampling = model.get_model_object("model_sampling")
        patched = self.sampled(comfyui, "sd15", self.node(start=0.3, end=0.7))
        window = ratio_at(sampling, 0.7), ratio_at(sampling, 0.3)
        with fs.skip.tuned(model.model.diffusion_model, 0.6, 0.9, sigma_window=window, process=process_of(sampling)):
            hooked = self.sampled(comfyui, "sd15", None)
        assert torch.equal(patched, hooked)
        assert not torch.equal(patched, self.sampled(comfyui, "sd15", self.node()))

    @pytest.mark.parametrize("kind", FLOWS)
    def test_a_model_without_skips_is_refused_with_a_sentence(self, comfyui, kind):
        with pytest.raises(RuntimeError, match="no skip connections"):
            self.sampled(comfyui, kind, self.node())


class TestMistakes:
    """What a wrong setting answers."""

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"variant": "published"}, "choose default or bh1 or bh2 or exact"),
            ({"solver": "sa", "window_start": 0.9}, "give 0 ≤ start < end ≤ 1"),
            ({"solver": "dpmpp", "order": 4}, "order is 4"),
            ({"settings": "odrer=3"}, "did you mean 'order'"),
        ],
    )
    def test_of_the_sampler(self, comfyui, settings, words):
        graph = Graph(comfyui, "sd15")
        graph.sample("ours", ours(comfyui, **settings), graph.scheduled("simple"))
        with pytest.raises(RuntimeError, match=words):
            graph.run()

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"start": 0.8, "end": 0.2}, "start below the end"),
            ({"sampler": ["native", 0]}, "not made by a fewstep Sampler"),
        ],
    )
    def test_of_the_grid(self, comfyui, settings, words):
        graph = Graph(comfyui, "sd15")
        graph.node("native", native("euler"))
        graph.sample("ours", ours(comfyui), graph.grid(**settings))
        with pytest.raises(RuntimeError, match=words):
            graph.run()

    def test_unsampling_with_noise(self, comfyui):
        graph = Graph(comfyui, "sd15")
        graph.sample("ours", ours(comfyui, solver="sa"), held(comfyui, "SIGMAS", torch.tensor([0.1, 1.0, 3.0])))
        with pytest.raises(RuntimeError, match="deterministic"):
            graph.run()


class Text:
    """What CLIPTextEncode asks of a CLIP."""

    def __init__(self, comfyui, kind: str) -> None:
        self.encoded = comfyui.conditioning(kind, 1)

    def tokenize(self, text: str) -> str:
        assert text
        return text

    def encode_from_tokens_scheduled(self, tokens: str) -> list:
        return [[tensor, dict(more)] for tensor, more in self.encoded]


class Pixels:
    """What VAEDecode asks of a VAE."""

    def decode(self, samples: torch.Tensor) -> torch.Tensor:
        return samples[:, :3].movedim(1, -1).sigmoid()


class TestExamples:
    """The workflows in examples/comfyui, with tiny models in place of what they load."""

    @pytest.mark.parametrize(("name", "kind"), [("sdxl", "sdxl"), ("flux", "flux"), ("recipe", "sdxl")])
    def test_a_workflow_is_valid_and_runs(self, comfyui, name, kind):
        if name == "recipe":
            from fewstep.integrations.comfyui.levels import process_of
            from fewstep.recipe import Recipe

            process = process_of(comfyui.model(kind).get_model_object("model_sampling"))
            plan = fs.UniPC(2).plan(fs.grids.uniform_logsnr(process, 6, end="zero"))
            Recipe(plan).save(comfyui.work / "models" / "fewstep" / "sdxl-6-steps.json")
        prompt = comfyui.prompt_of(json.loads((EXAMPLES / f"{name}.json").read_text("utf-8")))
        ready = {"MODEL": comfyui.model(kind), "CLIP": Text(comfyui, kind), "VAE": Pixels()}
        loaded = {
            "CheckpointLoaderSimple": ("MODEL", "CLIP", "VAE"),
            "UNETLoader": ("MODEL",),
            "DualCLIPLoader": ("CLIP",),
            "VAELoader": ("VAE",),
        }
        for node in prompt.values():
            if node["class_type"] in loaded:
                outputs = {output: ready[output] for output in loaded[node["class_type"]]}
                node |= {"class_type": comfyui.hold(**outputs), "inputs": {}}
            elif "Latent" in node["class_type"]:
                node["inputs"] |= {"width": 128, "height": 128}
        before = set((comfyui.work / "output").glob("*.png"))
        comfyui.run(prompt)
        (image,) = set((comfyui.work / "output").glob("*.png")) - before
        assert image.stat().st_size > 100
        assert any(node["class_type"].startswith("Fewstep") for node in prompt.values())

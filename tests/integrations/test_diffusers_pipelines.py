"""Real pipelines with tiny random weights, end to end."""

from __future__ import annotations

import json

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from support import tiny_pipelines as tiny

import fewstep as fs
from fewstep.integrations.diffusers import FewStepScheduler

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
VP = [
    tiny.stable_diffusion,
    tiny.stable_diffusion_v,
    tiny.stable_diffusion_xl,
    tiny.dit,
    tiny.pixart,
    tiny.controlnet,
    tiny.stable_diffusion_image,
    tiny.stable_diffusion_xl_image,
]


def close(a, b, tolerance=1e-3):
    assert float((a - b).abs().max()) <= tolerance


@pytest.mark.parametrize("make", tiny.TEXT_TO_IMAGE + tiny.IMAGE_TO_IMAGE, ids=lambda make: make.__name__)
def test_runs_on_any_grid_with_one_call_a_step(make):
    pipe, call = make()
    network = getattr(pipe, "unet", None) or pipe.transformer
    pipe.scheduler = FewStepScheduler.from_config(pipe.scheduler.config, solver="sa", grid="karras", tau=0.5)
    calls = []
    handle = network.register_forward_hook(lambda *_: calls.append(1))
    first = tiny.run(pipe, call, steps=5)
    handle.remove()
    halves = 2 if make is tiny.wan else 1  # Wan runs its guidance as a second call.
    assert len(calls) == halves * round(5 * call.get("strength", 1.0))
    assert bool(torch.isfinite(first).all())
    assert torch.equal(first, tiny.run(pipe, call, steps=5))


@pytest.mark.parametrize("make", VP, ids=lambda make: make.__name__)
def test_the_picture_of_unipc(make):
    pipe, call = make()
    config = pipe.scheduler.config
    pipe.scheduler = UniPCMultistepScheduler.from_config(config)
    expected = tiny.run(pipe, call)
    pipe.scheduler = FewStepScheduler.from_config(config)
    close(tiny.run(pipe, call), expected)


@pytest.mark.parametrize("make", [tiny.stable_diffusion_3, tiny.flux, tiny.stable_diffusion_3_image, tiny.flux_image])
def test_the_picture_of_a_flow(make):
    """Flux passes its own levels and mu; SD3 is given some: then Euler's steps are FlowMatchEuler's."""
    pipe, call = make()
    call["sigmas"] = np.linspace(1.0, 0.25, 4)
    expected = tiny.run(pipe, call)
    pipe.scheduler = FewStepScheduler.from_config(pipe.scheduler.config, solver="euler")
    close(tiny.run(pipe, call), expected)
    pipe.scheduler = FewStepScheduler.from_config(pipe.scheduler.config, solver="unipc", solver_order=1)
    assert float((tiny.run(pipe, call) - expected).abs().max()) > 1e-4


def test_the_video_of_wan():
    pipe, call = tiny.wan()
    expected = tiny.run(pipe, call)
    times = pipe.scheduler.sigmas.double().tolist()
    pipe.scheduler = FewStepScheduler.from_config(pipe.scheduler.config, solver="euler", grid=times)
    close(tiny.run(pipe, call), expected)


def test_inpainting_keeps_what_is_known():
    pipe, call = tiny.stable_diffusion_inpaint()
    config = pipe.scheduler.config
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(config)
    expected = tiny.run(pipe, call, output_type="latent")
    pipe.scheduler = FewStepScheduler.from_config(config, solver="dpmpp")
    close(tiny.run(pipe, call, output_type="latent"), expected)
    pipe.scheduler = FewStepScheduler.from_config(config, solver="unipc")
    kept = tiny.run(pipe, call, output_type="latent")[..., :3]
    close(kept, expected[..., :3])


@pytest.mark.parametrize("make", [tiny.dit, tiny.flux], ids=lambda make: make.__name__)
def test_a_saved_pipeline_loads_again(make, tmp_path):
    pipe, call = make()
    pipe.scheduler = FewStepScheduler.from_config(pipe.scheduler.config, solver="sa", grid="karras", seed=5)
    expected = tiny.run(pipe, call, steps=2)
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["scheduler"] == ["fewstep.integrations.diffusers", "FewStepScheduler"]
    absent = {name: None for name, part in pipe.components.items() if part is None}
    loaded = type(pipe).from_pretrained(tmp_path, **absent)
    assert isinstance(loaded.scheduler, FewStepScheduler) and loaded.scheduler.config.seed == 5
    close(tiny.run(loaded, call, steps=2), expected, 1e-5)


def test_half_precision_latents():
    pipe, call = tiny.stable_diffusion_3()
    expected = tiny.run(pipe, call, output_type="latent")
    pipe.scheduler = FewStepScheduler.from_config(pipe.scheduler.config)
    pipe.to(torch.bfloat16)
    halved = {key: value.bfloat16() if isinstance(value, torch.Tensor) else value for key, value in call.items()}
    images = pipe(**halved, num_inference_steps=3, output_type="pt")[0]
    assert images.dtype == torch.bfloat16 and bool(torch.isfinite(images).all())
    assert expected.dtype == torch.float32


def test_skip_tuning_goes_with_it():
    pipe, call = tiny.stable_diffusion()
    pipe.scheduler = FewStepScheduler.from_config(pipe.scheduler.config)
    plain = tiny.run(pipe, call)
    with fs.skip.tuned(pipe.unet, 0.5):
        assert not torch.allclose(tiny.run(pipe, call), plain, atol=1e-4)
    assert torch.equal(tiny.run(pipe, call), plain)


def test_the_first_block_cache_goes_with_it():
    hooks = pytest.importorskip("diffusers.hooks")
    pipe, call = tiny.flux()
    pipe.scheduler = FewStepScheduler.from_config(pipe.scheduler.config)
    calls, block = [], pipe.transformer.transformer_blocks[1]
    handle = block.attn.register_forward_hook(lambda *_: calls.append(1))
    plain = tiny.run(pipe, call, steps=6)
    assert len(calls) == 6
    pipe.transformer.enable_cache(hooks.FirstBlockCacheConfig(threshold=10.0))
    cached = tiny.run(pipe, call, steps=6)
    assert len(calls) < 12 and bool(torch.isfinite(cached).all())
    pipe.transformer.disable_cache()
    assert torch.equal(tiny.run(pipe, call, steps=6), plain)
    handle.remove()


def test_lora_goes_with_it():
    peft = pytest.importorskip("peft")
    pipe, call = tiny.stable_diffusion()
    pipe.scheduler = FewStepScheduler.from_config(pipe.scheduler.config)
    plain = tiny.run(pipe, call)
    pipe.unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    assert not torch.allclose(tiny.run(pipe, call), plain, atol=1e-5)
    pipe.unet.disable_adapters()
    close(tiny.run(pipe, call), plain, 1e-5)


def test_a_compiled_network_is_compiled_once():
    pipe, call = tiny.dit()
    pipe.scheduler = FewStepScheduler.from_config(pipe.scheduler.config, grid="karras")
    expected = tiny.run(pipe, call, steps=3)
    torch.compiler.reset()
    graphs = []

    def backend(module, inputs):
        graphs.append(module)
        return module.forward

    pipe.transformer = torch.compile(pipe.transformer, backend=backend)
    close(tiny.run(pipe, call, steps=3), expected, 1e-5)
    compiled = len(graphs)
    tiny.run(pipe, call, steps=5)
    assert len(graphs) == compiled > 0
    torch.compiler.reset()


def test_a_real_pretrained_folder(shared):
    folder = shared / "models" / "lfw32-ddpm"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    pipe = diffusers.DDPMPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    results = {}
    for steps in (6, 12, 24):
        pipe.scheduler = FewStepScheduler.from_config(pipe.scheduler.config, grid="karras")
        generator = torch.Generator().manual_seed(0)
        results[steps] = pipe(2, generator=generator, num_inference_steps=steps, output_type="pt").images
    assert results[6].shape == (2, 3, 32, 32) and 0.05 < float(results[24].std()) < 0.5
    errors = [float((results[steps] - results[24]).square().mean().sqrt()) for steps in (6, 12)]
    assert errors[1] < errors[0] < 0.15


class ClassConditional(diffusers.DDPMPipeline):
    """A DDPM pipeline that tells its network a class."""

    def __call__(self, labels, generator, num_inference_steps, **settings):
        network = self.unet
        x = torch.randn(len(labels), 1, 32, 32, generator=generator)
        self.scheduler.set_timesteps(num_inference_steps)
        for t in self.scheduler.timesteps:
            x = self.scheduler.step(network(x, t, labels).sample, t, x, generator=generator).prev_sample
        return (x,)


def test_the_embedded_model():
    try:
        model = fs.zoo.load("fashion-mnist")
    except OSError as error:
        pytest.skip(f"the embedded model is not there: {error}")
    scheduler = FewStepScheduler(prediction_type="v_prediction", solver_order=3, grid="karras")
    pipe, labels = ClassConditional(model.network, scheduler), torch.arange(3)
    with torch.no_grad():
        (got,) = pipe(labels, torch.Generator().manual_seed(0), 5)
    x_T = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    scheduler.set_timesteps(5)
    expected = fs.sample(model, fs.UniPC(3), scheduler.grid, x_T, cond=labels)
    close(got, expected)

"""Pipeline folders as models: the samples of DDIM are those of diffusers' own loop, decoder and guidance included."""

import json
import logging
import string

import diffusers
import numpy as np
import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from typer.testing import CliRunner

import fewstep as fs
from fewstep.cli.app import app
from fewstep.errors import InputError
from fewstep.fingerprint import model_fingerprint
from fewstep.guidance import thresholds
from fewstep.metrics import from_uint8
from fewstep.models.pipelines import asks_scheduler, is_pipeline, load_pipeline
from fewstep.skip_analysis.images import chosen_images

STEPS = 4


def scheduler(prediction_type: str = "epsilon", **settings) -> diffusers.DDIMScheduler:
    return diffusers.DDIMScheduler(
        prediction_type=prediction_type,
        timestep_spacing="trailing",
        steps_offset=1,
        **{"clip_sample": False, **settings},
    )


def vae() -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=0.5,
    )


def unconditional(prediction_type: str, **settings) -> diffusers.DDIMPipeline:
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    )
    return diffusers.DDIMPipeline(network, scheduler(prediction_type, **settings))


def classes() -> diffusers.DiTPipeline:
    torch.manual_seed(0)
    network = diffusers.DiTTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=2,
        attention_head_dim=4,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        num_embeds_ada_norm=1000,
    )
    for value in network.parameters():  # the last layers are made of zeros
        torch.nn.init.normal_(value, std=0.1)
    return diffusers.DiTPipeline(network.eval(), vae().eval(), scheduler())


def prompts(folder) -> diffusers.StableDiffusionPipeline:
    torch.manual_seed(0)
    network = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    pieces = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=12)
    text = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=52,
        eos_token_id=53,
        pad_token_id=53,
    )
    return diffusers.StableDiffusionPipeline(
        vae=vae(),
        unet=network,
        scheduler=scheduler("v_prediction"),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def drawn(folder, pipe, conditions=None, guidance=1.0, seed=3):
    """Save the pipeline, and return the image that fewstep makes of it with DDIM on diffusers' timesteps."""
    pipe.save_pretrained(folder)
    assert is_pipeline(folder)
    model = load_pipeline(folder).guided(guidance)
    pipe.scheduler.set_timesteps(STEPS)
    times = [(int(t) + 1) / 1000 for t in pipe.scheduler.timesteps]
    plan = fs.DDIM().plan(fs.TimeGrid(model.denoiser.process, [*times, 0.0]))
    return model, model.draw(plan, [seed], conditions)


def theirs(output) -> torch.Tensor:
    return torch.from_numpy(output.images).movedim(-1, 1) * 2.0 - 1.0


def call(pipe, **settings):
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    return theirs(pipe(generator=generator, num_inference_steps=STEPS, output_type="np", **settings))


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_unconditional_pipelines(tmp_path, prediction_type):
    pipe = unconditional(prediction_type)
    model, images = drawn(tmp_path, pipe)
    assert torch.allclose(images.clamp(-1, 1), call(pipe, batch_size=1), atol=2e-4)
    assert len(model_fingerprint(model)) == 64
    assert model_fingerprint(model) == model_fingerprint(load_pipeline(tmp_path))


@pytest.mark.parametrize(
    ("name", "asks"),
    [("StableDiffusionPipeline", True), ("StableDiffusionXLPipeline", True), ("DiTPipeline", True),
     ("DDPMPipeline", False), ("FluxPipeline", False), ("WanPipeline", False)],
)  # fmt: skip
def test_pipelines_that_ask_their_scheduler_what_the_network_is_given(name, asks, tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    assert asks_scheduler(tmp_path) is asks


def test_calibrate_says_what_the_pipeline_cannot_run(tmp_path, recwarn, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unconditional("epsilon").save_pretrained("pipeline")
    words = "calibrate --model pipeline --steps 2 --num 8 --reference-steps 4 --objective local --out".split()
    CliRunner().invoke(app, [*words, "r.json"], catch_exceptions=False)
    assert any("Write --analytic last" in str(warning.message) for warning in recwarn)
    recwarn.clear()
    CliRunner().invoke(app, [*words, "s.json", "--analytic", "last"], catch_exceptions=False)
    assert not any("--analytic" in str(warning.message) for warning in recwarn)
    assert fs.load_recipe("s.json").plan.nfe == 2


@pytest.mark.parametrize("name", ["DDPMScheduler", "ModelMixin", "NoSuchPipeline", "logging", 3])
def test_calibrate_refuses_a_folder_of_no_pipeline_in_a_sentence(name, tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    words = ["calibrate", "--model", str(tmp_path), "--steps", "2", "--out", str(tmp_path / "r.json")]
    with pytest.raises(InputError):
        CliRunner().invoke(app, words, catch_exceptions=False)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("settings", [{}, {"clip_sample": True, "clip_sample_range": 0.7}, {"thresholding": True}])
def test_the_data_prediction_is_the_schedulers(tmp_path, prediction_type, settings):
    pipe = unconditional(prediction_type, **settings)
    pipe.save_pretrained(tmp_path)
    model = load_pipeline(tmp_path)
    clipping = {
        "clip_sample_range": "StaticThreshold(limit=0.7)",
        "thresholding": "DynamicThreshold(quantile=0.995, limit=1)",
    }
    assert thresholds(model.denoiser) == [text for name, text in clipping.items() if name in settings]
    pipe.scheduler.set_timesteps(10)
    x_t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for timestep in (899, 399):
            output = pipe.unet(x_t, timestep).sample
            expected = pipe.scheduler.step(output, timestep, x_t).pred_original_sample
            found = model.denoiser(x_t, torch.tensor((timestep + 1) / 1000, dtype=torch.float64))
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_pipelines_of_classes_with_guidance(tmp_path):
    pipe = classes()
    model, images = drawn(tmp_path, pipe, conditions=[7], guidance=3.0)
    assert model.denoiser.num_classes == 1000
    assert images.shape == (1, 3, 16, 16)
    assert torch.allclose(images.clamp(-1, 1), call(pipe, class_labels=[7], guidance_scale=3.0), atol=1e-3)


def test_pipelines_of_prompts_with_guidance(tmp_path):
    pipe = prompts(tmp_path)
    _, images = drawn(tmp_path, pipe, conditions=["red boat"], guidance=2.5)
    assert torch.allclose(images.clamp(-1, 1), call(pipe, prompt="red boat", guidance_scale=2.5), atol=1e-3)
    _, other = drawn(tmp_path, pipe, conditions=["blue boat"], guidance=2.5)
    assert not torch.allclose(images, other, atol=1e-3)


def test_images_are_encoded_as_the_pipeline_decodes_them(tmp_path):
    pipe = prompts(tmp_path)
    pipe.save_pretrained(tmp_path)
    model = load_pipeline(tmp_path)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = model.encode(images)
    assert latents.shape[1:] == model.denoiser.shape
    with torch.no_grad():
        mean = pipe.vae.encode(images).latent_dist.mode()
        torch.testing.assert_close(latents, mean * 0.5)
        torch.testing.assert_close(model.decode(latents), pipe.vae.decode(mean).sample)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_pipeline_is_loaded_in_its_type_without_a_warning(tmp_path, dtype, monkeypatch, caplog, recwarn):
    unconditional("epsilon").save_pretrained(tmp_path / "p")
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    recwarn.clear()
    model = load_pipeline(tmp_path / "p", dtype=dtype)
    x = torch.randn(2, 3, 8, 8)
    assert model.denoiser(x, torch.tensor(0.5, dtype=torch.float64)).dtype == torch.float32
    assert {value.dtype for value in model.denoiser.network.parameters()} == {dtype}
    assert not recwarn.list and not caplog.records


def test_skip_tuning_is_measured_and_searched_on_latents(tmp_path, monkeypatch):
    class Means(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3))

    def fewstep(*words):
        result = CliRunner().invoke(app, ["skip", *map(str, words)], catch_exceptions=False)
        assert result.exit_code == 0, result.output

    monkeypatch.chdir(tmp_path)
    prompts(tmp_path).save_pretrained("pipe")
    torch.jit.save(torch.jit.trace(Means(), torch.zeros(1, 3, 8, 8)), "means.pt")
    np.savez("data.npz", images=np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8))
    (tmp_path / "prompts.txt").write_text("red boat\nblue boat\n")
    common = ("--model", "pipe", "--features", "torchscript:means.pt", "--num", 3, "--prompts", "prompts.txt")
    fewstep("diagnose", *common, "--data", "data.npz", "--levels", 2, "--inversion-steps", 2, "--out", "found")
    found = json.loads((tmp_path / "found" / "diagnosis.json").read_text())
    assert len(found["ratios"]) == 4 and len(found["feature_loss"]["relative"]) == 2
    model = load_pipeline(tmp_path / "pipe")
    chosen = chosen_images(tmp_path / "data.npz", 3)[0]
    cond = model.embed(["red boat", "blue boat", "red boat"])
    data = fs.skip_analysis.RealData(model.denoiser, model.encode(from_uint8(chosen)), cond=cond)
    losses = fs.skip_analysis.denoising_losses(data, found["levels"], Means(), model.decode)
    assert losses.pixel.mean(1).tolist() == pytest.approx(found["pixel_loss"]["untuned"], rel=1e-4)
    assert losses.feature.mean(1).tolist() == pytest.approx(found["feature_loss"]["untuned"], rel=1e-4)
    search = ("search", *common, "--grid", "karras", "--steps", 2, "--points", 2)
    fewstep(*search, "--reference", "data.npz", "--out", "fd.json")
    fewstep(*search, "--metric", "feature-loss", "--data", "data.npz", "--out", "loss.json")
    assert {fs.skip.load(name).skips for name in ("fd.json", "loss.json")} == {4}


def test_a_trained_pipeline(shared):
    """The face model's D is a good one: at little noise its error is a small part of the noise's."""
    model = load_pipeline(shared / "models" / "lfw32-ddpm")
    grid = fs.grids.karras(model.denoiser.process, 6)
    images = model.draw(fs.UniPC().plan(grid), [0, 1])
    noisy = images + 0.2 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    t = model.denoiser.process.time(-torch.log(torch.tensor(0.2, dtype=torch.float64)))
    with torch.no_grad():
        denoised = model.denoiser((model.denoiser.process.alpha(t) * noisy).float(), t)
    assert float((denoised - images).square().mean()) < 0.25 * 0.2**2


def test_a_model_of_classes_asks_for_one(tmp_path):
    pipe = unconditional("epsilon")
    pipe.register_modules(unet=diffusers.UNet2DModel(**{**pipe.unet.config, "num_class_embeds": 3}))
    with pytest.raises(InputError, match="needs a class for each image"):
        drawn(tmp_path, pipe)
    assert bool(torch.isfinite(drawn(tmp_path, pipe, [2])[1]).all())


def test_mistakes_are_answered(tmp_path):
    pipe = unconditional("epsilon")
    pipe.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no known null condition"):
        load_pipeline(tmp_path).guided(2.0)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:50])
    with pytest.raises(InputError, match="cannot be loaded"):
        load_pipeline(tmp_path)
    weights.unlink()
    torch.save({}, weights.with_suffix(".bin"))  # a pickle is not taken in place of safetensors
    with pytest.raises(InputError, match="cannot be loaded"):
        load_pipeline(tmp_path)
    assert not is_pipeline(tmp_path / "unet")

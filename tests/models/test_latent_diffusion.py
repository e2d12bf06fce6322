"""latent-diffusion's checkpoints: the UNet against diffusers' own, with diffusers' own conversion of the weights."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from support import checkpoints

import fewstep as fs
from fewstep.errors import InputError
from fewstep.models.checkpoints import read_weights
from fewstep.models.latent_diffusion import LatentDiffusionSettings, coder_names, load_latent_diffusion


@pytest.fixture
def written(tmp_path):
    return *checkpoints.latent_diffusion(tmp_path / "model.ckpt"), tmp_path / "model.ckpt"


def test_it_computes_what_diffusers_network_does(written):
    network, _, path = written
    theirs = UNet2DConditionModel(
        8, 3, 3, down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=24, attention_head_dim=1,
    ).eval().requires_grad_(False)  # fmt: skip
    weights = read_weights(path, "state_dict")
    theirs.load_state_dict(convert_ldm_unet_checkpoint(dict(weights), dict(theirs.config)))
    denoiser = load_latent_diffusion(path, checkpoints.LATENT_DIFFUSION).denoiser
    x, labels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 9])
    for index in (0.0, 420.5, 999.0):
        t = torch.tensor((index + 1) / 1000, dtype=torch.float64)
        alpha, sigma = (float(f(t)) for f in (denoiser.process.alpha, denoiser.process.sigma))
        for cond, context in ((labels, labels), (None, torch.tensor([10, 10]))):
            states = network.embedding(context)[:, None]
            expected = (x - sigma * theirs(x, index, states).sample) / alpha
            # A few hundred roundings of float32 on numbers of this size.
            assert torch.allclose(denoiser(x, t, cond), expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


def test_the_autoencoder_is_converted_as_diffusers_does(written):
    _, coder, path = written
    weights = read_weights(path, "state_dict")
    inner = {n.removeprefix("first_stage_model."): v for n, v in weights.items() if n.startswith("first_stage_model.")}
    ours = coder_names(inner, 2)
    config = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    theirs = convert_ldm_vae_checkpoint(dict(weights), config)
    kept = {name: value for name, value in theirs.items() if not name.startswith("loss.")}
    assert kept.keys() <= ours.keys() == coder.state_dict().keys()
    assert all(torch.equal(ours[name], value) for name, value in kept.items())
    model = load_latent_diffusion(path, checkpoints.LATENT_DIFFUSION)
    latents = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    assert torch.equal(model.images(latents), coder.decode(latents).sample) and len(model.parts) == 1
    assert model.guided(1.5).denoiser.inner is model.denoiser


def test_its_skips_can_be_scaled(written):
    denoiser = load_latent_diffusion(written[-1], checkpoints.LATENT_DIFFUSION).denoiser
    assert len(fs.skip.find(denoiser)) == 4
    x, t = torch.randn(1, 3, 8, 8), torch.tensor(0.5, dtype=torch.float64)
    plain = denoiser(x, t, 1)
    with fs.skip.tuned(denoiser, 0.5):
        assert not torch.allclose(denoiser(x, t, 1), plain)
    assert torch.equal(denoiser(x, t, 1), plain)


def test_other_settings_and_files_are_refused(written, tmp_path):
    *_, path = written
    unet, coder = checkpoints.LATENT_DIFFUSION.unet, checkpoints.LATENT_DIFFUSION.coder
    with pytest.raises(InputError, match="in another shape 1 weights .embedding.weight"):
        load_latent_diffusion(path, LatentDiffusionSettings(unet, coder))
    torch.save({"state_dict": {"model.diffusion_model.out.2.bias": torch.zeros(3)}}, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="no table of classes"):
        load_latent_diffusion(tmp_path / "other.ckpt", checkpoints.LATENT_DIFFUSION)


class Evil:
    def __reduce__(self):
        return open, ("RAN", "w")


def test_no_code_of_a_checkpoint_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "callbacks": Evil()}, "evil.ckpt")
    with pytest.raises(InputError, match="without running code"):
        load_latent_diffusion(tmp_path / "evil.ckpt", checkpoints.LATENT_DIFFUSION)
    assert not (tmp_path / "RAN").exists()

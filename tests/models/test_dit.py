"""DiT's checkpoints in diffusers' network, against DiT's formulas written again over the same weights."""

import math

import pytest
import torch
from support import checkpoints
from torch.nn import functional

from fewstep.errors import InputError
from fewstep.models.dit import DiTSettings, load_dit


def linear(weights, name, x):
    return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def modulated(x, shift, scale):
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


def computed(weights, x, times, labels, settings: DiTSettings):
    """DiT's forward pass (arXiv 2212.09748), with the names of its code."""
    width, patch, side = settings.heads * settings.head_channels, settings.patch, settings.size // settings.patch
    angles = times[:, None] * (-math.log(10_000) / 128 * torch.arange(128)).exp()
    h = functional.silu(linear(weights, "t_embedder.mlp.0", torch.cat([angles.cos(), angles.sin()], 1)))
    condition = linear(weights, "t_embedder.mlp.2", h) + weights["y_embedder.embedding_table.weight"][labels]
    condition = functional.silu(condition)
    x = functional.conv2d(x, weights["x_embedder.proj.weight"], weights["x_embedder.proj.bias"], stride=patch)
    x = x.flatten(2).transpose(1, 2) + weights["pos_embed"]
    for i in range(settings.depth):
        block = f"blocks.{i}"
        parts = linear(weights, f"{block}.adaLN_modulation.1", condition).chunk(6, 1)
        qkv = linear(weights, f"{block}.attn.qkv", modulated(x, *parts[:2]))
        q, k, v = qkv.unflatten(-1, (3, settings.heads, -1)).permute(2, 0, 3, 1, 4)
        made = ((q @ k.transpose(-1, -2)) / math.sqrt(settings.head_channels)).softmax(-1) @ v
        made = linear(weights, f"{block}.attn.proj", made.transpose(1, 2).flatten(2))
        x = x + parts[2][:, None] * made
        h = functional.gelu(linear(weights, f"{block}.mlp.fc1", modulated(x, *parts[3:5])), approximate="tanh")
        x = x + parts[5][:, None] * linear(weights, f"{block}.mlp.fc2", h)
    assert x.shape[-1] == width
    x = modulated(x, *linear(weights, "final_layer.adaLN_modulation.1", condition).chunk(2, 1))
    x = linear(weights, "final_layer.linear", x).view(len(x), side, side, patch, patch, -1)
    return torch.einsum("nhwpqc->nchpwq", x).reshape(len(x), -1, settings.size, settings.size)


@pytest.fixture
def written(tmp_path):
    return checkpoints.dit(tmp_path / "dit.pt"), checkpoints.autoencoder(tmp_path / "vae"), tmp_path


def test_a_checkpoint_is_what_its_code_computes(written):
    weights, coder, folder = written
    model = load_dit(folder / "dit.pt", checkpoints.DIT, folder / "vae")
    denoiser = model.denoiser
    assert denoiser.num_classes == model.null_cond == 10 and denoiser.learned_variance
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    for labels in ([3, 9], [10, 0]):
        for index in (0.0, 333.25, 999.0):
            t = torch.tensor((index + 1) / 1000, dtype=torch.float64)
            noise = computed(weights, x, torch.full((2,), index), torch.tensor(labels), checkpoints.DIT)[:, :4]
            alpha, sigma = (float(f(t)) for f in (denoiser.process.alpha, denoiser.process.sigma))
            expected = (x - sigma * noise) / alpha
            cond = torch.tensor(labels) if 10 not in labels else None
            if cond is None:
                expected, made = expected[:1], denoiser(x[:1], t)
            else:
                made = denoiser(x, t, cond)
            # A few hundred roundings of float32 on numbers of this size.
            assert torch.allclose(made, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))
    latents = torch.randn(1, 4, 8, 8)
    assert torch.equal(model.images(latents), coder.decode(latents / coder.config.scaling_factor).sample)


def test_weights_may_lie_within_a_training_checkpoint(written):
    weights, _, folder = written
    torch.save({"ema": weights, "args": {"model": "DiT"}}, folder / "train.pt")
    one, two = (load_dit(folder / name, checkpoints.DIT, folder / "vae").denoiser for name in ("dit.pt", "train.pt"))
    x, t = torch.randn(1, 4, 8, 8), torch.tensor(0.5, dtype=torch.float64)
    assert torch.equal(one(x, t, 1), two(x, t, 1))


def test_loading_draws_no_random_numbers(written):
    *_, folder = written
    before = torch.get_rng_state()
    load_dit(folder / "dit.pt", checkpoints.DIT, folder / "vae")
    assert torch.equal(torch.get_rng_state(), before)


def test_other_files_are_refused(written):
    *_, folder = written
    with pytest.raises(InputError, match="of another network"):
        load_dit(folder / "dit.pt", DiTSettings(8, 1, 4, 8, classes=10), folder / "vae")
    with pytest.raises(InputError, match="the autoencoder .* cannot be loaded"):
        load_dit(folder / "dit.pt", checkpoints.DIT, folder)

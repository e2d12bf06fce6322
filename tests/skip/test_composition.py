"""Skip-Tuning together with what pipelines of diffusers do to a UNet, and what it costs on the embedded network."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from support import skip_diffusers_networks as small
from support.rounding import rounding
from support.skip_reference import ScaledConcatenation, randomised
from torch.utils._python_dispatch import TorchDispatchMode
from train_embedded_model import NETWORK

from fewstep import guidance, skip, zoo
from fewstep.processes import VPDiscrete

library = pytest.importorskip("diffusers")
RHO = [0.5, 0.6, 0.7, 0.8]
MID = torch.cos(torch.arange(2 * 16 * 8 * 8).float()).view(2, 16, 8, 8)
RESIDUALS = [
    torch.cos(torch.arange(2 * c * n * n).float()).view(2, c, n, n) for c, n in ((8, 16), (8, 16), (8, 8), (16, 8))
]


def compared(network, call):
    plain = call()
    with ScaledConcatenation(RHO) as reference:
        expected = call()
    with skip.tuned(network, rho=RHO):
        result = call()
    assert len(reference.seen) == 4
    scale = plain.abs().max()
    # FreeU's Fourier transforms, there and back, are 16 butterflies at most; the layers after round as often again.
    torch.testing.assert_close(result / scale, expected / scale, rtol=0, atol=rounding(64, 1.0, torch.float32))
    assert ((result - plain).abs().max() / scale) > 1e-3
    assert torch.equal(call(), plain)


def test_guided_denoisers_are_looked_through():
    model = zoo.load("fashion-mnist", guidance_scale=2.0)
    denoiser = guidance.StaticThreshold(model)
    assert skip.find(denoiser) == skip.find(model.inner.network)
    x, labels = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 2])
    times = model.process.time(-torch.tensor([0.3, 3.0], dtype=torch.float64).log())
    with skip.tuned(denoiser, 0.5, sigma_window=(None, 1.0)):
        windowed = [model(x, t, labels) for t in times]
    with skip.tuned(model.inner.network, 0.5):
        inside = model(x, times[0], labels)
    assert torch.equal(windowed[0], inside) and torch.equal(windowed[1], model(x, times[1], labels))
    assert not torch.equal(windowed[0], model(x, times[0], labels))


def test_freeu_acts_on_the_scaled_skip():
    network, call = small.conditional()
    randomised(network).enable_freeu(s1=0.9, s2=0.2, b1=1.4, b2=1.6)
    compared(network, call)


def test_controlnet_residuals_are_scaled_with_the_skip():
    network, _ = small.conditional()
    randomised(network)
    compared(
        network,
        lambda: (
            network(
                small.IMAGE,
                small.TIMES,
                small.TEXT,
                mid_block_additional_residual=MID,
                down_block_additional_residuals=RESIDUALS,
            ).sample
        ),
    )


def test_gradient_checkpointing():
    network, call = small.conditional()
    randomised(network).requires_grad_(True).train().enable_gradient_checkpointing()

    def gradients():
        network.zero_grad()
        call().square().mean().backward()
        return torch.cat([p.grad.flatten() for p in network.parameters()])

    with skip.tuned(network, rho=RHO):
        result = gradients()
    network.disable_gradient_checkpointing()
    with ScaledConcatenation(RHO):
        expected = gradients()
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("times", [600, torch.tensor(600), small.TIMES], ids=["number", "scalar", "batch"])
def test_a_window_reads_a_pipelines_timesteps(times):
    network, _ = small.conditional()
    randomised(network)
    process = VPDiscrete.from_betas(0.00085, 0.012, 1000, "scaled_linear")
    at = float(process.sigma(0.601) / process.alpha(0.601))
    plain = network(small.IMAGE, times, small.TEXT).sample
    with skip.tuned(network, 0.5):
        everywhere = network(small.IMAGE, timestep=times, encoder_hidden_states=small.TEXT).sample
    for window, expected in [((0.9 * at, at), everywhere), ((at, None), everywhere), ((None, 0.99 * at), plain)]:
        with skip.tuned(network, 0.5, sigma_window=window, process=process):
            torch.testing.assert_close(network(small.IMAGE, times, small.TEXT).sample, expected, rtol=0, atol=1e-5)


def test_a_video_has_each_samples_factor_in_all_its_frames():
    network, _ = small.unet3d()
    randomised(network)
    process = VPDiscrete.from_betas()
    profile = skip.Profile(0.4, sigma_weight=[(0.5, 0.0), (20.0, 1.0)])
    with skip.tuned(network, profile=profile, process=process):
        together = network(small.VIDEO, torch.tensor([300, 700]), small.TEXT).sample
        apart = [network(small.VIDEO[i : i + 1], t, small.TEXT[i : i + 1]).sample for i, t in enumerate((300, 700))]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-4, atol=1e-4)


class Operations(TorchDispatchMode):
    """Counts what is computed: the name and the shape of each operation's result."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.counts[function, tuple(result.shape)] += 1
        return result


@pytest.mark.parametrize(
    "settings", [{}, {"sigma_window": (0.05, 5.0), "process": VPDiscrete.from_betas()}], ids=["constant", "window"]
)
def test_hooks_multiply_each_skip_of_the_embedded_network_once_and_touch_nothing_else(settings):
    network = randomised(library.UNet2DModel(**NETWORK))
    x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))

    def operations():
        with torch.inference_mode(), Operations() as seen:
            network(x, torch.full((2,), 300.0), torch.zeros(2, dtype=torch.long))
        return seen.counts

    plain = operations()
    with skip.tuned(network, 0.7, 0.9, **settings) as handle:
        tuned = operations()
    assert not plain - tuned
    added = {key: count for key, count in (tuned - plain).items() if math.prod(key[1]) > 2 * 19}  # not the look-up
    skips = Counter((2, site.channels, *site.resolution) for site in handle.skips)
    assert added == {(torch.ops.aten.mul.Tensor, shape): count for shape, count in skips.items()}

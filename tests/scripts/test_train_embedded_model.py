"""The training script: it learns, its times are where they should be, and a stopped run goes on."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import train_embedded_model as training
from safetensors.torch import load_file
from support.waiting import needs_gpu

from fewstep.processes import VPDiscrete

WEIGHTS = "diffusion_pytorch_model.safetensors"


def test_times_are_spread_over_the_noise_levels():
    process = VPDiscrete.from_betas()
    t = training.stratified_times(process, 4096, torch.Generator().manual_seed(0))
    half_logsnr = process.half_logsnr(t)
    assert float(t.min()) >= process.t_min and float(t.max()) <= 1.0
    assert float(half_logsnr.mean()) == pytest.approx(0.5, abs=0.05)
    assert float(half_logsnr.std()) == pytest.approx(1.65, abs=0.1)


def test_the_loss_is_that_of_the_velocity():
    process = VPDiscrete.from_betas()
    x_0, noise = torch.randn(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    t = torch.full((4,), 0.5, dtype=torch.float64)
    alpha, sigma = process.alpha(0.5), process.sigma(0.5)

    class Exact(torch.nn.Module):
        def forward(self, x_t, time, class_labels):
            assert torch.allclose(time, torch.full((4,), 499.0))
            assert torch.allclose(x_t, (alpha * x_0 + sigma * noise).float(), atol=1e-6)
            return type("Output", (), {"sample": alpha * noise - sigma * x_0})

    assert float(training.velocity_loss(Exact(), process, x_0, torch.zeros(4).long(), t, noise)) < 1e-10


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Twenty images, a network of eight channels, and the settings of a run of four steps."""
    monkeypatch.setitem(training.NETWORK, "attention_head_dim", 8)
    images = np.random.default_rng(0).integers(0, 255, (20, 28, 28, 1), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", train_images=images, train_labels=np.arange(20) % 10)
    return tmp_path / "data.npz", training.Settings(
        steps=4, batch=4, warm_up=2, channels=(8, 8, 8), lengths=(0.1, 0.15), checkpoint_every=0.0
    )


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(small, tmp_path, monkeypatch, device):
    data, settings = small
    settings = replace(settings, device=device)
    training.train(data, tmp_path / "whole", settings)
    calls, loss = [], training.velocity_loss

    def cut_off(*args):
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return loss(*args)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(training, "velocity_loss", cut_off)
        training.train(data, tmp_path / "parts", settings)
    half = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)
    assert half["step"] == 2 and (tmp_path / "parts" / "unet" / "config.json").exists()
    training.train(data, tmp_path / "parts", settings)
    whole, parts = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "parts"))
    same = torch.equal if device == "cpu" else lambda a, b: torch.allclose(a, b, atol=1e-3)
    for name, value in whole["network"].items():
        assert same(value, parts["network"][name]), name
    for folder in ("unet", "unet-0.15"):
        one, other = (load_file(tmp_path / run / folder / WEIGHTS) for run in ("whole", "parts"))
        assert all(same(value, other[name]) for name, value in one.items())
    config = json.loads((tmp_path / "whole" / "unet" / "config.json").read_text())
    assert config["num_class_embeds"] == 11 and str(tmp_path) not in str(config)


def test_it_goes_on_from_weights_for_so_many_minutes(small, tmp_path, capsys, monkeypatch):
    data, settings = small
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    training.train(data, tmp_path / "first", settings)
    start = tmp_path / "first" / "unet"
    further = replace(settings, start=start, steps=None, minutes=0.02, channels=training.NETWORK["block_out_channels"])
    began = training.new_network(further)
    assert torch.equal(began.conv_in.weight, load_file(start / WEIGHTS)["conv_in.weight"].float())
    training.train(data, tmp_path / "more", further)
    steps = torch.load(tmp_path / "more" / "checkpoint.pt", weights_only=True)["step"]
    assert steps >= 1 and "images/s" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "more" / "loss.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, steps + 1))


def test_the_rate_rises_and_falls_to_zero_by_steps_or_by_minutes():
    settings = training.Settings(steps=100, minutes=10.0, peak=2.0, warm_up=10)
    assert settings.progress(50, 0.0) == 0.5 and settings.progress(50, 450.0) == 0.75
    rates = [training.learning_rate(settings.progress(step, 0.0), step, settings) for step in range(100)]
    assert max(rates) < 2.0 and rates.index(max(rates)) == 9 and rates[-1] < 0.001
    assert training.learning_rate(1.2, 100, settings) == 0.0


def test_half_of_the_images_are_mirrored():
    images = torch.arange(400 * 4, dtype=torch.float32).view(400, 1, 2, 2)
    made = training.flipped(images, torch.Generator().manual_seed(0))
    mirrored = (made == images.flip(-1)).flatten(1).all(1)
    assert bool((mirrored | (made == images).flatten(1).all(1)).all())
    assert abs(int(mirrored.sum()) - 200) < 5 * 10  # five standard deviations of a binomial

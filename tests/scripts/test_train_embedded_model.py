"""The training script: it learns, its times are where they should be, and a stopped run goes on."""

import json

import numpy as np
import pytest
import torch
import train_embedded_model as training

from fewstep.processes import VPDiscrete


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


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path, monkeypatch):
    monkeypatch.setitem(training.NETWORK, "block_out_channels", (8, 8, 8))
    monkeypatch.setitem(training.NETWORK, "attention_head_dim", 8)
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 2)
    images = np.random.default_rng(0).integers(0, 255, (20, 28, 28, 1), dtype=np.uint8)
    data = tmp_path / "data.npz"
    np.savez(data, train_images=images, train_labels=np.arange(20) % 10)
    settings = {"batch": 4, "peak": 1e-3, "decay": 0.9, "seed": 0}
    training.train(data, tmp_path / "whole", steps=4, **settings)
    monkeypatch.setattr(
        training, "learning_rate", lambda step, steps, peak, inner=training.learning_rate: inner(step, 4, peak)
    )
    training.train(data, tmp_path / "parts", steps=2, **settings)
    training.train(data, tmp_path / "parts", steps=4, **settings)
    whole, parts = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "parts"))
    for name, value in whole["average"].items():
        assert torch.equal(value, parts["average"][name]), name
    assert json.loads((tmp_path / "whole" / "unet" / "config.json").read_text())["num_class_embeds"] == 11

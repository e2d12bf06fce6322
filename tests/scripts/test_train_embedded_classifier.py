"""The classifier's training script: it learns, and the same seed gives the same weights."""

import torch
import train_embedded_classifier as training

from fewstep.metrics.classifier import load_classifier


def bars(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of one horizontal bar, whose place is the class."""
    labels = torch.arange(count) % 10
    images = torch.full((count, 1, 28, 28), -1.0)
    for image, label in zip(images, labels, strict=True):
        image[0, 2 * int(label) + 3] = 1.0
    return images, labels


def test_it_learns_and_repeats(tmp_path):
    images, labels = bars(320)
    one, two = (training.train(images, labels, epochs=6, batch=32, peak=5e-3, seed=0) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert training.accuracy(one, images, labels) > 0.5
    training.save_weights(one, tmp_path / "c.safetensors")
    shipped = load_classifier(tmp_path / "c.safetensors")
    assert torch.allclose(shipped(images[:4]), one(images[:4]), atol=0.1)


def test_the_rate_rises_and_falls_to_zero():
    rates = [training.learning_rate(step, 100, 1.0) for step in range(100)]
    assert max(rates) == 1.0 and rates.index(1.0) in (19, 20) and rates[0] == 0.05 and rates[-1] < 0.01

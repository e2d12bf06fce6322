"""The training of the embedded classifier.

python scripts/train_embedded_classifier.py --data fashion_mnist.npz --out DIR
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from fewstep.metrics.classifier import Classifier, load_classifier
from fewstep.metrics.extractor import Extractor, embedded
from fewstep.metrics.frechet import moments_of
from fewstep.metrics.moments import Moments


def load_images(path: Path, part: str) -> tuple[Tensor, Tensor]:
    """Return images float32 [n, 1, 28, 28] in [−1, 1] and labels int64 [n] of ``part``, "train" or "test"."""
    with np.load(path) as data:
        images, labels = data[f"{part}_images"], data[f"{part}_labels"]
    return torch.from_numpy(images).float().movedim(-1, 1) / 127.5 - 1.0, torch.from_numpy(labels).long()


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images moved by up to one pixel, all alike, every second one mirrored."""
    down, right = (int(torch.randint(-1, 2, (), generator=generator)) for _ in range(2))
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    moved = images.roll((down, right), (2, 3))
    return torch.where(mirrored.view(-1, 1, 1, 1), moved.flip(3), moved)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the rate at ``step``: a linear rise over a fifth of the steps, then half a cosine down to zero."""
    rise = 0.2 * steps
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - rise) / (steps - rise)))


def train(images: Tensor, labels: Tensor, epochs: int, batch: int, peak: float, seed: int) -> Classifier:
    """Return a trained classifier; the same seed gives the same one on the same machine."""
    torch.manual_seed(seed)
    classifier: Classifier = Classifier().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(classifier.parameters(), peak, weight_decay=0.05)
    generator = torch.Generator().manual_seed(seed)
    per_epoch = len(images) // batch
    for step in range(epochs * per_epoch):
        if step % per_epoch == 0:
            order = torch.randperm(len(images), generator=generator)
        chosen = order[step % per_epoch * batch :][:batch]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, epochs * per_epoch, peak)
        with torch.autocast("cpu", torch.bfloat16):
            logits = classifier(augmented(images[chosen], generator))
        loss = cross_entropy(logits.float(), labels[chosen])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step % 100 == 0:
            print(f"step {step} of {epochs * per_epoch}: loss {loss.item():.4f}", flush=True)
    return classifier.eval()


@torch.no_grad()
def accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    """Return the share of images whose class is recognised."""
    right = sum(
        int((classifier(some).argmax(1) == wanted).sum())
        for some, wanted in zip(images.split(1000), labels.split(1000), strict=True)
    )
    return right / len(images)


def save_weights(classifier: Classifier, path: Path) -> None:
    """Write the weights in half precision."""
    state = classifier.state_dict()
    save_file({k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}, path)


def statistics(extractor: Extractor, images: Tensor) -> Moments:
    """Return the mean and covariance of the images' features."""
    return moments_of(map(extractor, images.split(1000)), extractor.tag)


def main() -> None:
    """Read the command line, train, and write weights and the statistics of the training images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="fashion_mnist.npz: images and labels")
    parser.add_argument("--out", type=Path, required=True, help="folder for classifier.safetensors and statistics.npz")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.perf_counter()
    images, labels = load_images(args.data, "train")
    classifier = train(images, labels, args.epochs, args.batch, args.learning_rate, args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    save_weights(classifier, args.out / "classifier.safetensors")
    shipped = load_classifier(args.out / "classifier.safetensors")
    statistics(embedded(args.out), images).save(args.out / "statistics.npz")
    print(
        f"test accuracy {accuracy(shipped, *load_images(args.data, 'test')):.4f}, {time.perf_counter() - began:.0f} s"
    )


if __name__ == "__main__":
    main()

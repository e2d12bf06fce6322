"""The embedded classifier of Fashion-MNIST, whose last hidden layer gives the default features."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fewstep.errors import InputError

__all__ = ["Classifier", "load_classifier"]

CLASSES = 10
FEATURES = 64
PIXELS = 28


class Classifier(nn.Module):
    """A convolutional network for 28×28 grey images in [−1, 1]: 64 features, ten classes.

    Four convolutions with batch normalisation; the features are the means of the last one's 64 maps.
    Images of 32×32 are taken as padded by two pixels on each side, and cropped.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_block(1, 32, kernel=5, stride=2),
            *_block(32, 64),
            nn.MaxPool2d(2),
            *_block(64, 128),
            *_block(128, FEATURES),
        )
        self.head = nn.Linear(FEATURES, CLASSES)

    def features(self, images: Tensor) -> Tensor:
        """Return the features [n, 64] of images [n, 1, 28 or 32, 28 or 32]."""
        if images.ndim != 4 or images.shape[1] != 1 or images.shape[2:] not in ((28, 28), (32, 32)):
            raise InputError(
                f"images have shape {tuple(images.shape)}: the features 'fashion-mnist' are of grey images, "
                "[n, 1, 28, 28] or [n, 1, 32, 32]; for others give torchscript:FILE, inception:FILE or dinov2:FOLDER "
                "(docs/measure.md says how to get them)."
            )
        margin = (images.shape[-1] - PIXELS) // 2
        cropped = images[..., margin : margin + PIXELS, margin : margin + PIXELS]
        return self.body(cropped.contiguous(memory_format=torch.channels_last)).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [n, 10]."""
        return self.head(self.features(images))


def _block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def load_classifier(weights: Path) -> Classifier:
    """Return the classifier with weights in half precision from a safetensors file, computing in float32."""
    classifier = Classifier()
    classifier.load_state_dict(load_file(weights))
    return classifier.eval().requires_grad_(False)

"""The pictures of the embedded model's card: ten of each class in 8 calls and in 100, and the loss curve.

python benchmarks/model_card.py
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import torch

import fewstep as fs
from fewstep.cli.shared.images import write_samples
from fewstep.metrics import to_uint8
from fewstep.report.style import drawing

IMAGES = Path(__file__).parent.parent / "docs" / "images"
SEEDS = list(range(100))
CLASSES = torch.arange(10).repeat_interleave(10)


def class_grid(steps: int) -> None:
    """Write a picture of ten samples of each class, a row a class, made in ``steps`` calls from the same seeds."""
    model = fs.zoo.load("fashion-mnist")
    plan = fs.UniPC(3).plan(fs.grids.uniform_logsnr(model.process, steps))
    assert plan.nfe == steps
    x_T = fs.initial_state(fs.TimeGrid(plan.process, plan.times), (1, 32, 32), SEEDS)
    images = to_uint8(fs.execute(plan, model, x_T, cond=CLASSES))
    write_samples(IMAGES / f"fashion-mnist-{steps}.png", "images", images, SEEDS, CLASSES.tolist())


def loss_curve() -> None:
    """Draw the training loss that the training script logged."""
    with (resources.files("fewstep.models") / "fashion_mnist" / "loss.jsonl").open() as log:
        lines = [json.loads(line) for line in log]
    with drawing(IMAGES / "fashion-mnist-loss.png", 6, 3, dpi=120) as (_, panels):
        panels[0][0].plot([line["step"] for line in lines], [line["loss"] for line in lines])
        panels[0][0].set(xlabel="step (64 images each)", ylabel="v-prediction loss", ylim=(0.1, 0.3))


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    for steps in (8, 100):
        class_grid(steps)
    loss_curve()

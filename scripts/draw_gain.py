"""The picture of README.md: the same ten seeds in five calls by diffusers' UniPC and by fewstep, and in a hundred.

python scripts/draw_gain.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UniPCMultistepScheduler
from matplotlib.figure import Figure

import fewstep as fs

OUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "gain.png"
SEEDS, CLASSES, CALLS = range(20, 30), torch.arange(10), 5


def by_diffusers(model: fs.DataPredictor, x: torch.Tensor) -> torch.Tensor:
    """Return the samples of diffusers' scheduler with its default timesteps."""
    kept = model.process.alphas_cumprod
    betas = 1.0 - kept / torch.cat([kept.new_ones(1), kept[:-1]])
    scheduler = UniPCMultistepScheduler(trained_betas=betas.tolist(), prediction_type="sample")
    scheduler.set_timesteps(CALLS)
    for timestep in scheduler.timesteps:
        t = (timestep.double() + 1) / len(kept)
        x = scheduler.step(model(x, t, CLASSES), timestep, x, return_dict=False)[0]
    return x


@torch.no_grad()
def main() -> None:
    """Draw the samples and lay them out in three rows."""
    model = fs.zoo.load("fashion-mnist")
    few = fs.grids.quadratic_time(model.process, CALLS)
    many = fs.grids.uniform_logsnr(model.process, 100)
    x_T = torch.cat([torch.randn(1, *model.shape, generator=torch.Generator().manual_seed(s)) for s in SEEDS])
    rows = {
        f"diffusers' UniPC\n{CALLS} calls": by_diffusers(model, x_T),
        f"fewstep\n{CALLS} calls": fs.sample(model, fs.UniPC(order=2), few, x_T * few.sigma[0], cond=CLASSES),
        "100 calls": fs.sample(model, fs.UniPC(order=3), many, x_T * many.sigma[0], cond=CLASSES),
    }
    figure = Figure(figsize=(10, 2.7))
    panels = figure.subplots(3, 1)
    for axes, (name, images) in zip(panels, rows.items(), strict=True):
        axes.imshow(torch.cat(list(images[:, 0]), dim=1), cmap="gray", vmin=-1, vmax=1)
        axes.set(xticks=[], yticks=[])
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=11)
        axes.spines[:].set_visible(False)
    figure.subplots_adjust(left=0.15, right=1, top=1, bottom=0, hspace=0.04)
    figure.savefig(OUT, dpi=110)


if __name__ == "__main__":
    main()

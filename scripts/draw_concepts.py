"""The picture of docs/concepts.md: a run of the embedded model, with the words for its parts.

python scripts/draw_concepts.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import fewstep as fs
from fewstep.report.style import COLOURS, INK, PALE, SETTINGS

OUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "concepts.png"
STEPS, SEED, LABEL = 5, 6, 9
BLUE, RED, GREEN = COLOURS[:3]
STATES, PREDICTIONS = 4.0, 2.35
"""Heights of the two rows of images."""
LEFT, RIGHT, LOW, HIGH = -0.6, 6.55, 1.15, 4.8
"""The limits of the upper panel, in which an interval is one unit wide."""


def run() -> tuple[fs.TimeGrid, list[torch.Tensor], list[torch.Tensor]]:
    """Return a grid, the states at its times, and the predictions at all of them but the last."""
    model = fs.zoo.load("fashion-mnist")
    grid = fs.grids.uniform_logsnr(model.process, STEPS, end=model.process.t_min)
    states = [fs.initial_state(grid, model.shape, [SEED])]
    predictions: list[torch.Tensor] = []

    def keep(step: int, t: torch.Tensor, x_t: torch.Tensor, x0: torch.Tensor) -> None:
        states.append(x_t.clone())
        predictions.append(x0.clone())

    fs.sample(model, fs.DPMSolverPP(2, lower_order_final=False), grid, states[0], cond=[LABEL], callback=keep)
    return grid, states, predictions


def show(axes: Axes, image: torch.Tensor, x: float, y: float, edge: str, spread: float = 1.0) -> None:
    """Draw one image with a frame, centred at (x, y)."""
    half = 0.42
    box = (x - half, x + half, y - half, y + half)
    axes.imshow(image[0, 0], cmap="gray", vmin=-spread, vmax=spread, extent=box, zorder=2)
    axes.add_patch(Rectangle((x - half, y - half), 2 * half, 2 * half, fill=False, edgecolor=edge, lw=1.6, zorder=3))


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, style: str = "-") -> None:
    """Draw an arrow between two points."""
    look = {"arrowstyle": "-|>", "color": colour, "lw": 1.5, "linestyle": style, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=look, zorder=1)


def draw_run(axes: Axes, states: list[torch.Tensor], predictions: list[torch.Tensor]) -> None:
    """Draw states above, predictions below, and what leads from one to the other."""
    for i, state in enumerate(states):
        show(axes, state, i, STATES, INK, 1.6)
        name = {0: "$x_T$", STEPS: "$x_0$"}.get(i, f"$x_{{t_{i}}}$")
        axes.text(i, STATES + 0.52, name, ha="center", va="bottom", color=INK)
    for i, prediction in enumerate(predictions):
        show(axes, prediction, i, PREDICTIONS, BLUE)
        arrow(axes, (i, STATES - 0.44), (i, PREDICTIONS + 0.44), BLUE)
        axes.text(i, PREDICTIONS - 0.52, f"$D_{i}$", ha="center", va="top", color=BLUE)
        arrow(axes, (i + 0.44, STATES), (i + 0.56, STATES), INK)
    axes.text(0.08, 3.2, "call", color=BLUE, va="center")

    look = {"facecolor": "#eef4fb", "edgecolor": "none", "zorder": 0}
    axes.add_patch(Rectangle((STEPS - 2.5, PREDICTIONS - 0.85), 2.0, 1.37, **look))
    axes.text(STEPS - 1.5, PREDICTIONS - 0.92, "history of the last row", ha="center", va="top", color=BLUE)
    arrow(axes, (STEPS - 0.56, PREDICTIONS + 0.1), (STEPS + 0.05, STATES - 0.46), GREEN)
    arrow(axes, (STEPS - 1.56, PREDICTIONS + 0.3), (STEPS - 0.2, STATES - 0.46), GREEN)
    text = f"row:\n$x_0 = a\\,x_{{t_{STEPS - 1}}} + b_0 D_{STEPS - 1} + b_1 D_{STEPS - 2} + c\\,\\xi$"
    axes.text(STEPS - 0.25, PREDICTIONS, text, color=GREEN, va="center", ha="left", linespacing=1.6)
    axes.set(xlim=(LEFT, RIGHT), ylim=(LOW, HIGH), aspect="equal")
    axes.axis("off")


def draw_axis(axes: Axes, grid: fs.TimeGrid) -> None:
    """Draw α, σ and the grid over λ."""
    ends = float(grid.half_logsnr[0]), float(grid.half_logsnr[-1])
    places = torch.linspace(*ends, 300, dtype=torch.float64)
    times = grid.process.time(places)
    axes.plot(places, grid.process.alpha(times), color=GREEN, lw=2)
    axes.plot(places, grid.process.sigma(times), color=RED, lw=2)
    axes.text(ends[1], 1.03, "α, factor of the data", color=GREEN, ha="right", va="bottom")
    axes.text(ends[0], 1.03, "σ, factor of the noise", color=RED, ha="left", va="bottom")
    for point in grid.half_logsnr.tolist():
        axes.axvline(point, color=PALE, lw=1, zorder=0)
    left, right = grid.half_logsnr[1:3].tolist()
    axes.annotate("", (left, 0.14), (right, 0.14), arrowprops={"arrowstyle": "<->", "color": INK})
    axes.text((left + right) / 2, 0.2, "interval", ha="center", va="bottom", color=INK)
    width = (ends[1] - ends[0]) / STEPS
    axes.set_xlim(ends[0] + LEFT * width, ends[0] + RIGHT * width)
    axes.set(ylim=(0, 1.2), yticks=[], xlabel="λ = log(α/σ) at the times of the grid")
    axes.set_xticks(grid.half_logsnr.tolist(), [f"{point:.1f}" for point in grid.half_logsnr.tolist()])
    axes.spines[["top", "right", "left"]].set_visible(False)


def main() -> None:
    """Run the model and draw the picture."""
    grid, states, predictions = run()
    width, low = 9.6, 2.2
    high = width * (HIGH - LOW) / (RIGHT - LEFT)
    with rc_context({**SETTINGS, "font.size": 11, "mathtext.fontset": "dejavusans"}):
        figure = Figure(figsize=(width, low + high))
        draw_run(figure.add_axes((0, low / (low + high), 1, high / (low + high))), states, predictions)
        draw_axis(figure.add_axes((0, 0.5 / (low + high), 1, (low - 0.6) / (low + high))), grid)
        figure.savefig(OUT, dpi=110)


if __name__ == "__main__":
    main()

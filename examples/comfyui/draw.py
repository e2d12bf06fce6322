"""Draw a workflow as docs/comfyui.md shows it: ``draw.py sdxl.json docs/images/comfyui.png``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve

COLORS = {
    "MODEL": "#8e7cc3",
    "CLIP": "#d9a400",
    "VAE": "#d9534f",
    "CONDITIONING": "#e08e45",
    "LATENT": "#d16ba5",
    "IMAGE": "#5b8fd9",
    "NOISE": "#808080",
    "GUIDER": "#3fa7a0",
    "SAMPLER": "#2e8b57",
    "SIGMAS": "#4a8f29",
}
WIDGETS = {
    "CheckpointLoaderSimple": ("",),
    "CLIPTextEncode": ("",),
    "EmptyLatentImage": ("width", "height", "batch"),
    "CFGGuider": ("cfg",),
    "RandomNoise": ("seed",),
    "SaveImage": ("name",),
    "FewstepSampler": ("solver", "order", "variant", "corrector", "tau", "window_start", "window_end"),
    "FewstepGrid": ("grid", "steps", "denoise", "start", "end"),
    "FewstepRecipe": ("recipe",),
}
LINE, HEAD = 24, 30


def rows(node: dict[str, Any]) -> list[str]:
    """Return the settings that are shown."""
    values = zip(WIDGETS.get(node["type"], ()), node["widgets_values"], strict=False)
    return [f"{name}: {value}" if name else shortened(str(value)) for name, value in values]


def shortened(text: str) -> str:
    """Return the beginning of a long text."""
    return text if len(text) < 31 else text[:29] + " …"


def height(node: dict[str, Any]) -> float:
    """Return the height of a node's box."""
    return HEAD + LINE * (max(len(node["inputs"]), len(node["outputs"])) + len(rows(node))) + 8


def place(node: dict[str, Any], slot: int, side: str) -> tuple[float, float]:
    """Return where a link meets a node."""
    x, y = node["pos"]
    return x + (node["size"][0] if side == "outputs" else 0), y + HEAD + LINE * (slot + 0.5)


def draw(workflow: dict[str, Any], target: Path) -> None:
    """Write the picture of a workflow."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    left, top = (min(node["pos"][i] for node in nodes.values()) - 20 for i in (0, 1))
    right = max(node["pos"][0] + node["size"][0] for node in nodes.values()) + 20
    bottom = max(node["pos"][1] + height(node) for node in nodes.values()) + 20
    figure, axes = plt.subplots(figsize=((right - left) / 130, (bottom - top) / 130), dpi=130)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.axis("off")
    for _, source, out, sink, into, kind in workflow["links"]:
        (x0, y0), (x1, y1) = place(nodes[source], out, "outputs"), place(nodes[sink], into, "inputs")
        bend = max(50.0, abs(x1 - x0) / 2)
        curve = Curve([(x0, y0), (x0 + bend, y0), (x1 - bend, y1), (x1, y1)], [1, 4, 4, 4])
        axes.add_patch(PathPatch(curve, fill=False, color=COLORS[kind], linewidth=2, zorder=1))
    for node in nodes.values():
        box(axes, node)
    figure.savefig(target, bbox_inches="tight", facecolor="white")


def box(axes: plt.Axes, node: dict[str, Any]) -> None:
    """Draw one node."""
    x, y, width, tall = *node["pos"], node["size"][0], height(node)
    own = node["type"].startswith("Fewstep")
    title = node.get("title") or {"FewstepSampler": "fewstep Sampler", "FewstepGrid": "fewstep Grid"}.get(
        node["type"], node["type"]
    )
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            width,
            tall,
            boxstyle="round,pad=0,rounding_size=8",
            facecolor="#e8f3ea" if own else "#f4f4f4",
            edgecolor="#2e8b57" if own else "#888888",
            linewidth=2 if own else 1,
            zorder=2,
        )
    )
    axes.text(x + 10, y + HEAD / 2, title, va="center", fontsize=8.5, weight="bold", zorder=3)
    for side, align, shift in (("inputs", "left", 12), ("outputs", "right", -12)):
        for slot, one in enumerate(node[side]):
            at_x, at_y = place(node, slot, side)
            axes.plot(at_x, at_y, "o", color=COLORS[one["type"]], markersize=7, zorder=4)
            axes.text(at_x + shift, at_y, one["name"], va="center", ha=align, fontsize=8, zorder=3)
    start = y + HEAD + LINE * max(len(node["inputs"]), len(node["outputs"]))
    for i, row in enumerate(rows(node)):
        axes.text(x + 14, start + LINE * (i + 0.5), row, va="center", fontsize=8, color="#444444", zorder=3)


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    draw(json.loads((source if source.exists() else Path(__file__).parent / source).read_text("utf-8")), target)

"""The report of ``fewstep tune``: what was tried, and images of the winner, the default and the solution."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.cli.command import spelled
from fewstep.cli.settings.tune import TuneSettings
from fewstep.cli.shared.manifest import versions
from fewstep.metrics.pixels import to_uint8
from fewstep.models.model import Model
from fewstep.report import tuning_page
from fewstep.storage import write_whole
from fewstep.tuning import Settings, Tuning

__all__ = ["usage", "write_report"]


def write_report(settings: TuneSettings, model: Model, found: Tuning, texts: list[str]) -> Path:
    """Write the page beside the recipe, whole or not at all, and return where it is."""
    path = settings.out.with_suffix(".html")
    chosen = found.winner if found.verdict.better else found.default
    rows = [
        {
            "name": one.settings.name,
            "value": one.value,
            "noises": one.noises,
            "predicted": one.predicted,
            "levels": _levels(one.settings),
            "winner": one.settings.key == found.winner.key,
            "default": one.settings.key == found.default.key,
        }
        for one in found.tried
    ]
    command, python = usage(settings, model)
    verdict = found.verdict
    search = {
        "model": Path(settings.model).name,
        "calls": settings.calls,
        "spent": found.calls,
        "budget": found.budget,
        "reference_steps": found.reference_steps,
        "prompts": texts,
        "chosen": chosen.name,
        "command": spelled("tune", settings).replace(" --model ", " "),
        "use": command,
        "python": python,
        "versions": versions(),
        "verdict": {**verdict.to_dict(), "sentence": str(verdict), "equivalence": verdict.equivalence},
        "rows": rows,
    }
    page = tuning_page(search, _pictures(settings, model, found))
    write_whole(path, lambda part: part.write_text(page, "utf-8"))
    return path


def usage(settings: TuneSettings, model: Model) -> tuple[str, str]:
    """Return the command that samples with the recipe, and the lines of Python that do."""
    prompts = " --prompt 'a red bicycle'" if model.embed is not None else ""
    call = "".join(f" --call {shlex.quote(one)}" for one in settings.call)
    command = f"fewstep sample --model {settings.model}{call} --recipe {settings.out}{prompts}"
    if (Path(settings.model) / "model_index.json").is_file():
        python = f'fs.enable(pipe, recipe="{settings.out}")  # then call pipe(…) as ever'
    else:
        python = f'fs.execute(fs.load_recipe("{settings.out}"), denoiser, x_T)'
    return command, f"import fewstep as fs\n{python}"


def _levels(settings: Settings) -> list[float | None]:
    """Return σ/α at each time; None stands for infinity."""
    levels = (-settings.plan.grid.half_logsnr).exp().tolist()
    return [level if level < float("inf") else None for level in levels]


def _pictures(settings: TuneSettings, model: Model, found: Tuning) -> list[tuple[str, str, Any]]:
    """Return images of the same unseen noises; none where samples are no images."""
    if not settings.pictures:
        return []
    shown = []
    for name, (words, samples) in found.samples(settings.pictures).items():
        images = _images(model, samples)
        if images is None:
            return []
        shown.append((name, words, images))
    return shown


def _images(model: Model, samples: Tensor) -> Any:
    """Return samples decoded, uint8 [n, H, W, C]: of a video the first frame; None where they are no images."""
    with torch.no_grad():
        made = model.images(samples.to(model.denoiser.device)).float().cpu()
    if made.ndim == 5:
        made = made[:, 0]
    if made.ndim != 4 or made.shape[1] not in (1, 3):
        return None
    return to_uint8(made)

"""``fewstep doctor``: the schedule that a pipeline really runs, and what is wrong with it."""

from __future__ import annotations

import math
from pathlib import Path

import typer

from fewstep.cli.settings.doctor import DoctorSettings
from fewstep.cli.settings.grid import check_suffix
from fewstep.cli.shared.calls import call_of
from fewstep.errors import InputError
from fewstep.integrations.diffusers import Diagnosis
from fewstep.integrations.diffusers import doctor as diagnosed
from fewstep.models.pipelines import is_pipeline, read_pipeline
from fewstep.report.style import ACCENT, COLOURS, drawing, plain_ticks
from fewstep.storage import json_text, write_whole

__all__ = ["doctor"]


def doctor(settings: DoctorSettings) -> None:
    """Print the diagnosis of a pipeline, and draw it if wanted."""
    check_suffix("--plot", settings.plot, (".png", ".svg"))
    if not is_pipeline(settings.model):
        there = Path(settings.model).is_dir()
        raise InputError(
            f"{str(settings.model)!r} {'has no model_index.json' if there else 'is no folder'}: give one that a "
            "pipeline's save_pretrained wrote."
        )
    options = {"height": settings.height, "width": settings.width, "guidance_scale": settings.guidance}
    given = {name: value for name, value in options.items() if value is not None}
    call = call_of(settings.call, settings.guidance)
    for name in call.keys() & given.keys():
        raise InputError(f"--call {name}=… and --{name} are both given: leave one of them out.")
    found = diagnosed(read_pipeline(settings.model), settings.steps, measure=settings.measure, **given, **call)
    typer.echo(json_text(found.to_dict()) if settings.json else str(found))
    if settings.plot is not None:
        write_whole(settings.plot, lambda path: _draw(found, path))


def _draw(found: Diagnosis, path: Path) -> None:
    """Draw σ/α and λ over the network calls, beside those that fewstep would make."""
    lines = [(found.steps, found.scheduler, {"color": ACCENT, "marker": "o", "linestyle": "-"})]
    if found.own is not None:
        lines.append((found.own, "fs.enable(pipe)", {"color": COLOURS[0], "marker": "s", "linestyle": "--"}))
    with drawing(path, 8, 3.2, dpi=150, columns=2) as (_, panels):
        for steps, label, look in lines:
            for axes, name in zip(panels[0], ("ratio", "half_logsnr"), strict=True):
                values = [getattr(step, name) for step in steps]
                finite = [value if math.isfinite(value) else None for value in values]
                axes.plot(range(len(steps)), finite, label=label, markersize=5, linewidth=1, **look)
        for axes, name in zip(panels[0], ("σ/α", "λ"), strict=True):
            axes.set(xlabel="network call", ylabel=name)
            axes.xaxis.get_major_locator().set_params(integer=True)
        panels[0][0].set_yscale("log")
        plain_ticks(panels[0][0].yaxis)
        panels[0][0].legend()

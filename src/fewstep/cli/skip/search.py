"""``fewstep skip search``: the best ρ for a model, a solver and a number of steps, as a profile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from fewstep.cli.settings.skip import SearchSettings
from fewstep.cli.shared.conditions import read_prompts
from fewstep.cli.shared.features import needed_features
from fewstep.cli.shared.journals import description_of
from fewstep.cli.shared.manifest import versions
from fewstep.cli.shared.models import load_model
from fewstep.cli.shared.profiles import origin
from fewstep.cli.shared.progress import bar
from fewstep.cli.shared.sampler import Asked
from fewstep.cli.skip.figures import draw_search
from fewstep.cli.skip.objective import Wanted
from fewstep.fingerprint import guidance_scale
from fewstep.journal import Journal, journal
from fewstep.skip_analysis import SearchPoint, SearchResult
from fewstep.skip_analysis import search as searched
from fewstep.skip_analysis.search import evaluations
from fewstep.storage import write_whole

__all__ = ["search"]


def search(settings: SearchSettings) -> None:
    """Search for the ρ that suits a model, a solver and a number of steps; the same command resumes a stopped run."""
    with journal(settings.out) as begin:
        _search(settings, begin)


def _search(settings: SearchSettings, begin: Callable[[dict[str, Any]], Journal]) -> None:
    ranges, method, points, metric = settings.ranges, settings.method, settings.points, settings.metric
    total = evaluations(**ranges, method=method, points=points)
    asked, texts = Asked.of(settings), read_prompts(None, settings.prompts)
    extractor = needed_features(settings.features, settings.model, metric, settings.device)
    model = load_model(settings, settings.guidance)
    sampler = asked.on(model)
    wanted = Wanted(settings, model, sampler.plan, extractor, texts)
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[shown]}")
    with bar(*columns) as display:
        task = display.add_task("searching", total=None, shown="")
        objective, calls = wanted.objective(lambda: display.advance(task))
        read = {"plan": sampler.plan.to_json(), "prompts": texts, "features": extractor.tag}
        keep = begin(description_of("skip search", settings, model, **read, **wanted.read(objective)))
        display.update(task, total=calls * total)

        def progress(point: SearchPoint) -> None:
            display.update(task, shown=f"ρ {point.bottom:.3g} … {point.top:.3g}: {metric} {point.value:.4g}")

        seeds = range(settings.seed, settings.seed + settings.num)
        found = searched(
            model.denoiser,
            objective,
            seeds,
            **ranges,
            method=method,
            points=points,
            progress=progress,
            keep=keep,
        )
    record = {
        **sampler.words,
        "metric": metric,
        "bottom": settings.bottom,
        "top": settings.top,
        "method": method,
        "points": points,
        "num": settings.num,
        "seed": settings.seed,
        "features": extractor.tag,
        "reference": settings.reference if settings.data is None else None,
        "data": settings.data and settings.data.name,
        "class": settings.classes,
        "prompts": texts,
        "guidance": guidance_scale(model.denoiser),
        "device": settings.device.partition(":")[0],
        "dtype": settings.dtype,
    }
    _write(
        settings.out,
        found,
        metric,
        {**origin(settings.model, model.denoiser), "calls": sampler.plan.nfe, "settings": record},
    )
    _show(found, metric, settings.out)
    few = wanted.few()
    if few is not None:
        typer.echo(few)


def _write(out: Path, found: SearchResult, metric: str, origin: dict[str, Any]) -> None:
    origin = {
        **origin,
        "points": [asdict(point) for point in found.points],
        "check": found.check and asdict(found.check),
        "versions": versions(),
    }
    profile = replace(found.profile, origin=origin)

    def write(path: Path) -> None:
        path.write_text(profile.to_json() + "\n", "utf-8")

    write_whole(out.with_suffix(".png"), lambda path: draw_search(found, metric, path))
    write_whole(out, write)


def _show(found: SearchResult, metric: str, out: Path) -> None:
    console = Console(highlight=False, markup=False)
    table = Table("ρ deepest", "ρ outermost", metric, box=None, header_style="bold")
    for point in found.points:
        words = f"{point.bottom:.4g}", f"{point.top:.4g}", f"{point.value:.5g}"
        table.add_row(*words, style="bold" if point == found.best else "")
    console.print(table)
    if found.check is None:
        console.print(f"no tuning was better than none: the profile changes nothing -> {out}")
        return
    below = [point.bottom for point in found.points[1:]]
    if len(set(below)) > 2 and found.best.bottom in (min(below), max(below)):
        console.print("the best is at an end of what was tried: a wider --bottom may do more")
    check = found.check
    better = "" if check.high < 0 else "; no difference that is certain" if check.low <= 0 else "; it is worse there"
    console.print(
        f"on fresh seeds {metric} {check.untuned:.5g} -> {check.tuned:.5g}, difference 95 % in "
        f"[{check.low:.3g}, {check.high:.3g}]{better} -> {out}"
    )

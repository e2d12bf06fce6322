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
from fewstep.errors import InputError
from fewstep.fingerprint import guidance_scale
from fewstep.journal import Journal, journal
from fewstep.models.model import Model
from fewstep.processes.spec import parse
from fewstep.skip_analysis import Objective, SearchPoint, SearchResult
from fewstep.skip_analysis import search as searched
from fewstep.skip_analysis.search import evaluations
from fewstep.storage import write_whole

__all__ = ["search"]


def search(settings: SearchSettings) -> None:
    """Search for the ρ that suits a model, a solver and a number of steps; the same command resumes a stopped run."""
    with journal(settings.out) as begin:
        _search(settings, begin)


def _search(settings: SearchSettings, begin: Callable[[dict[str, Any]], Journal]) -> None:
    wide: dict[str, Any] = {
        **settings.ranges,
        "windows": settings.noise_windows,
        "method": settings.method,
        "points": settings.points,
    }
    total, metric = evaluations(**wide, taus=max(1, len(settings.taus))), settings.metric
    asked, texts = Asked.of(settings), read_prompts(None, settings.prompts)
    extractor = needed_features(settings.features, settings.model, metric, settings.device)
    model = load_model(settings, settings.guidance)
    samplers = {
        tau: replace(asked, solver=solver).on(model) for tau, solver in _solvers(settings, asked, model).items()
    }
    sampler = next(iter(samplers.values()))
    wanted = Wanted(settings, model, sampler.plan, extractor, texts)
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[shown]}")
    with bar(*columns) as display:
        task = display.add_task("searching", total=None, shown="")
        advance = lambda: display.advance(task)  # noqa: E731
        objective, calls = wanted.objective(advance)
        by_tau: dict[Any, Objective] = {
            tau: replace(wanted, plan=chosen.plan).objective(advance)[0] for tau, chosen in samplers.items() if tau
        }
        plans = [chosen.plan.to_json() for chosen in samplers.values()]
        read = {"plan": plans[0] if len(plans) == 1 else plans, "prompts": texts, "features": extractor.tag}
        keep = begin(description_of("skip search", settings, model, **read, **wanted.read(objective)))
        display.update(task, total=calls * total)

        def progress(point: SearchPoint) -> None:
            display.update(task, shown=f"{_setting(point)}: {metric} {point.value:.4g}")

        seeds = range(settings.seed, settings.seed + settings.num)
        found = searched(model.denoiser, by_tau or objective, seeds, **wide, progress=progress, keep=keep)
    _write(
        settings.out,
        found,
        metric,
        {
            **origin(settings.model, model.denoiser),
            "calls": sampler.plan.nfe,
            "settings": {
                **samplers[found.best.tau].words,
                **_record(settings),
                "features": extractor.tag,
                "prompts": texts,
                "guidance": guidance_scale(model.denoiser),
            },
        },
    )
    _show(found, metric, settings.out)
    few = wanted.few()
    if few is not None:
        typer.echo(few)


def _record(settings: SearchSettings) -> dict[str, Any]:
    """Return the settings besides the sampler that a profile's origin keeps."""
    return {
        "metric": settings.metric,
        "bottom": settings.bottom,
        "top": settings.top,
        "windows": settings.windows,
        "tau": settings.tau,
        "method": settings.method,
        "points": settings.points,
        "num": settings.num,
        "seed": settings.seed,
        "reference": settings.reference if settings.data is None else None,
        "data": settings.data and settings.data.name,
        "class": settings.classes,
        "device": settings.device.partition(":")[0],
        "dtype": settings.dtype,
        **({"call": list(settings.call)} if settings.call else {}),
    }


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


def _solvers(settings: SearchSettings, asked: Asked, model: Model) -> dict[Any, str | None]:
    """Return the solver as it is written for each ``--tau``; without any the one that was asked for, under None.

    Raises:
        InputError: if the solver takes no τ, or has one already.
    """
    if not settings.taus:
        return {None: asked.solver}
    words = asked.words(model)["solver"]
    name, given = parse(words)
    if name != "sa" or "tau" in given:
        raise InputError(
            f"--tau is {settings.tau!r} and --solver {words!r}: write --solver sa, without tau, beside it."
        )
    return {tau: f"{words}{',' if given else ':'}tau={tau}" for tau in settings.taus}


def _setting(point: SearchPoint) -> str:
    """Return a point's setting in words."""
    tau = "" if point.tau is None else f"τ {point.tau}, "
    return f"{tau}ρ {point.bottom:.3g} … {point.top:.3g}{_within(point)}"


def _within(point: SearchPoint) -> str:
    if point.window is None:
        return ""
    low, high = ("" if end is None else f"{end:g}" for end in point.window)
    return f" at σ/α {low}:{high}"


def _show(found: SearchResult, metric: str, out: Path) -> None:
    console = Console(highlight=False, markup=False)
    with_tau, with_window = (any(getattr(p, name) is not None for p in found.points) for name in ("tau", "window"))
    columns = [("τ", with_tau), ("σ/α", with_window), ("ρ deepest", True), ("ρ outermost", True), (metric, True)]
    table = Table(*(name for name, there in columns if there), box=None, header_style="bold")
    for point in found.points:
        where = _within(point).removeprefix(" at σ/α ") or ("all" if point.tuned else "")
        rho = f"{point.bottom:.4g}", f"{point.top:.4g}", f"{point.value:.5g}"
        row = [*([f"{point.tau}"] if with_tau else []), *([where] if with_window else []), *rho]
        table.add_row(*row, style="bold" if point == found.best else "")
    console.print(table)
    at = "" if found.best.tau is None else f" at τ = {found.best.tau}"
    if found.check is None:
        console.print(f"no tuning was better than none{at}: the profile changes nothing -> {out}")
        return
    below = [point.bottom for point in found.points if point.tuned]
    if len(set(below)) > 2 and found.best.bottom in (min(below), max(below)):
        console.print("the best is at an end of what was tried: a wider --bottom may do more")
    check = found.check
    better = "" if check.high < 0 else "; no difference that is certain" if check.low <= 0 else "; it is worse there"
    console.print(
        f"on fresh seeds {metric} {check.untuned:.5g} -> {check.tuned:.5g}, difference 95 % in "
        f"[{check.low:.3g}, {check.high:.3g}]{better} -> {out}"
    )
    if found.best.tau is not None:
        console.print(f"the profile goes with τ = {found.best.tau}")

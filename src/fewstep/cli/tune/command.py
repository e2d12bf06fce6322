"""``fewstep tune``: the search, its progress and its files."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from fewstep.cli.settings.tune import TuneSettings
from fewstep.cli.shared.conditions import conditions_of, read_prompts
from fewstep.cli.shared.features import needed_features
from fewstep.cli.shared.models import load_model
from fewstep.cli.shared.progress import bar
from fewstep.cli.tune.report import usage, write_report
from fewstep.errors import InputError, one_line
from fewstep.metrics import from_uint8
from fewstep.metrics.images import check_path, image_batches
from fewstep.models.model import Model
from fewstep.skip_analysis.images import fitted
from fewstep.tuning import DistanceToImages, ErrorToSolution, Objective, Score, Tuning
from fewstep.tuning import tune as tuned

__all__ = ["tune"]

SHOWN = 8
"""Candidates that are printed."""


def tune(settings: TuneSettings) -> None:
    """Find the best recipe for a model within a budget."""
    texts = read_prompts(settings.prompt, settings.prompts)
    scorer = None if settings.score is None else _scorer(settings.score)
    if settings.data is not None:
        check_path(settings.data)
    model = load_model(settings, settings.guidance)
    objective = _objective(settings, model, scorer, texts)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with bar(*columns, TextColumn("{task.fields[shown]}")) as display:
        task = display.add_task("tuning", total=None, shown="")

        def progress(stage: str, done: int, total: int, best: float | None) -> None:
            shown = "" if best is None else f"best so far {best:.4g}"
            display.update(task, description=stage, completed=done, total=total, shown=shown)

        found = tuned(
            model,
            settings.calls,
            objective=objective,
            cond=_conditions(model, settings.class_, texts),
            budget=settings.budget,
            reference_steps=settings.reference_steps,
            storage=settings.storage,
            folder=settings.out.with_suffix(".tune"),
            batch_size=settings.batch_size,
            progress=progress,
        )
    found.recipe.save(settings.out)
    page = write_report(settings, model, found, texts)
    _show(found)
    typer.echo(f"{found.verdict} -> {settings.out}, {page}")
    command, _ = usage(settings, model)
    typer.echo(f"{found.calls} network calls; use it: {command}")


def _objective(
    settings: TuneSettings, model: Model, scorer: Callable[..., Any] | None, texts: list[str]
) -> Objective | None:
    """Return what is made small; None for the error of samples to the solution."""
    if scorer is not None:
        return Score(scorer, str(settings.score), texts or None)
    if settings.data is None and settings.features is None:
        return None
    what = "--features" if settings.data is None else "--data"
    extractor = needed_features(settings.features, settings.model, what, settings.device)
    if settings.data is None:
        return ErrorToSolution(extractor)
    shape = model.denoiser.shape if model.decode is None else None
    batches = [from_uint8(part) if shape is None else fitted(part, shape) for part in image_batches(settings.data)]
    return DistanceToImages(extractor, batches, settings.data.name)


def _conditions(model: Model, class_: str, texts: list[str]) -> Any:
    """Return what ``fs.tune`` takes as ``cond``.

    Raises:
        InputError: as ``conditions_of``.
    """
    chosen = conditions_of(model, [0], class_, texts)
    if model.embed is not None:
        return model.embed(texts)
    return "none" if chosen is None else None if class_ == "each" else chosen[0]


def _scorer(text: str) -> Callable[..., Any]:
    """Return the function of ``--score``.

    Raises:
        InputError: if there is none.
    """
    module, _, function = text.partition(":")
    if not module or not function or module[0] == "." or "/" in module:
        raise InputError(f"--score is {text!r}: write module:function, as scores:aesthetic for scores.py.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"--score is {text!r}: {error}; write module:function, importable from here.") from error
    if not callable(found):
        raise InputError(f"--score is {text!r}, which is {type(found).__name__}: name a function of samples.")
    return found


def _show(found: Tuning) -> None:
    """Print the best candidates, and the default."""
    metric = found.verdict.metric
    table = Table("solver", "grid", metric, "noises", "predicted", box=None, header_style="bold")
    default = [one for one in found.tried[SHOWN:] if one.settings.key == found.default.key]
    for one in (*found.tried[:SHOWN], *default):
        predicted = "" if one.predicted is None else f"{one.predicted:.4g}"
        words = one.settings.solver, one.settings.grid, f"{one.value:.4g}", str(one.noises), predicted
        words = (f"{words[0]} (default)", *words[1:]) if one.settings.key == found.default.key else words
        table.add_row(*map(one_line, words), style="bold" if one.settings.key == found.winner.key else "")
    Console(highlight=False, markup=False).print(table)

"""``fewstep calibrate``: a plan fitted to a model, kept as a recipe."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import typer
from rich.progress import TextColumn, TimeElapsedColumn
from torch import Tensor

from fewstep.calibration import calibrate as fit
from fewstep.calibration.settings import Settings
from fewstep.cli.settings.calibrate import CalibrateSettings
from fewstep.cli.shared.conditions import conditions_of, read_prompts
from fewstep.cli.shared.features import needed_features
from fewstep.cli.shared.journals import Kept, description_of
from fewstep.cli.shared.models import load_model
from fewstep.cli.shared.progress import bar
from fewstep.cli.shared.sampler import Asked
from fewstep.journal import Journal, journal
from fewstep.metrics import Moments
from fewstep.metrics.references import reference_summary
from fewstep.models.model import Model
from fewstep.models.pipelines import asks_scheduler, is_pipeline

__all__ = ["calibrate"]

FEW = 8
"""Held-out noises below which the gain is said to stand on few."""


def calibrate(settings: CalibrateSettings) -> None:
    """Fit a solver's coefficients, and its times if wanted, to a model; the same command resumes a stopped run."""
    with journal(settings.out) as begin:
        _calibrate(settings, begin)


def _calibrate(settings: CalibrateSettings, begin: Callable[[dict[str, Any]], Journal]) -> None:
    counts, texts = settings.counts, read_prompts(settings.prompt, settings.prompts)
    asked, options = Asked.of(settings, max(counts)), _options(settings)
    compared = torch.detach if settings.compares_features else None  # Which ones is known with the model.
    Settings(**options, steps=tuple(counts), seeds=None, features=compared, target=None, progress=None)
    model = load_model(settings, settings.guidance)
    _warn_of_formulas(settings)  # Of a folder that was loaded: it names a pipeline of the diffusers that is there.
    solver, start = asked.chosen(model)
    given = {"solver": repr(solver), "grid": start.to_json(), "prompts": texts}
    keep = begin(description_of("calibrate", settings, model, **given))
    features, target = _features(settings, model)
    columns = (TextColumn("{task.description}"), TextColumn("{task.fields[shown]}"), TimeElapsedColumn())
    with bar(*columns) as display:
        task = display.add_task("calibrating", total=None, shown="")

        def progress(stage: str, calls: int, best: float | None) -> None:
            error = "" if best is None else f", best error {best:.4g}"
            display.update(task, description=stage, shown=f"{calls} calls{error}")

        book = fit(
            model.denoiser if model.denoiser.remembers else Kept(model.denoiser, keep),
            solver,
            start,
            steps=counts,
            cond=_conditions(model, settings.num, settings.class_, texts),
            features=features,
            target=target,
            progress=progress,
            **options,
        )
    (book if len(counts) > 1 else book[counts[0]]).save(settings.out)
    for recipe in book.recipes:
        plan, report = recipe.plan, recipe.report
        typer.echo(f"{plan.steps} steps, {plan.nfe} network calls: {report} -> {settings.out}")
        if report is not None and report.kept == "base":
            typer.echo(f"The fit was no better on the held-out noises than {plan.solver}, so that was kept.")
    held_out = min(recipe.report.held_out for recipe in book.recipes if recipe.report is not None)
    if held_out < FEW:
        typer.echo(f"only {held_out} of {settings.num} noises were held out: take --num {4 * FEW} or more.")


def _options(settings: CalibrateSettings) -> dict[str, Any]:
    """Return what ``fs.calibrate`` is given as it was written."""
    names = ("num", "history", "loss", "reference_steps", "search", "objective", "budget", "batch_size")
    return {**{name: getattr(settings, name) for name in names}, "analytic": _number(settings.analytic)}


def _warn_of_formulas(settings: CalibrateSettings) -> None:
    """Say that the recipe may begin with formulas that the model's own pipeline has no place for."""
    folder = Path(settings.model)
    if _number(settings.analytic) not in (0, "last") and is_pipeline(folder) and not asks_scheduler(folder):
        warnings.warn(
            "this pipeline does not ask its scheduler what the network is to be given, and cannot run recipes that "
            "begin with formulas; fewstep's commands can. Write --analytic last for one to be enabled in it.",
            stacklevel=2,
        )


def _number(analytic: str) -> Any:
    """Return a number where one is written, else the word, for ``fs.calibrate`` to check."""
    return int(analytic) if re.fullmatch("[0-9]{1,9}", analytic) else analytic


def _features(settings: CalibrateSettings, model: Model) -> tuple[Callable[[Tensor], Tensor] | None, Moments | None]:
    """Return what is compared of samples, under the name of the features, and the moments that it should have.

    Raises:
        InputError: if there are no such features or images, or none are known for the model.
    """
    if not settings.compares_features:
        return None, None
    extractor = needed_features(settings.features, settings.model, f"--objective {settings.objective}", settings.device)

    def compared(samples: Tensor) -> Tensor:
        return extractor(samples if model.decode is None else model.decode(samples))

    compared.__name__ = extractor.tag
    target = settings.target
    return compared, None if target is None else reference_summary(target, extractor, settings.batch_size).moments


def _conditions(model: Model, num: int, class_: str, texts: list[str]) -> Any:
    """Return what ``fs.calibrate`` takes as ``cond``."""
    conditions = conditions_of(model, range(num), class_, texts)
    if conditions is None:
        return "none"
    if model.embed is not None:
        return model.embed([str(text) for text in conditions])
    return torch.tensor(conditions)

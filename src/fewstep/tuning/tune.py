"""The public ``tune``: a model in, the best recipe that a budget finds for it out, with what it is worth."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.calibration.network import checked_predictor
from fewstep.checks import as_integer, check_callback, shown, whole
from fewstep.denoiser import DataPredictor
from fewstep.errors import InputError
from fewstep.fingerprint import guidance_scale, model_fingerprint
from fewstep.guidance import ClassifierFree
from fewstep.models.model import Model
from fewstep.models.pipeline_denoiser import PipelineDenoiser
from fewstep.models.pipelines import whole_model
from fewstep.tuning.conditions import ConditionRows
from fewstep.tuning.journal import Journal
from fewstep.tuning.objectives import ErrorToSolution, Objective
from fewstep.tuning.result import Tuning
from fewstep.tuning.schedule import steps_of_solutions
from fewstep.tuning.search import Progress, Search
from fewstep.tuning.subject import Subject

__all__ = ["BUDGET", "tune"]

BUDGET = 6000
"""The default budget, in network calls."""
UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}


def tune(
    model: Model | DataPredictor,
    calls: int = 8,
    *,
    objective: Objective | None = None,
    cond: Any = None,
    budget: int | str = BUDGET,
    reference_steps: int | None = None,
    storage: str | None = None,
    folder: Path | str | None = None,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> Tuning:
    """Return the best recipe of ``calls`` network calls that a budget finds for a model.

    First, all solvers on all grids are ranked by the error that they make on Gaussian data with the spectrum of the
    model's samples, which costs no network call. The best of each solver are then measured on the network itself by
    successive halving: many candidates on few noises, the better ones on more, the same noises for all. The best is
    calibrated (``fs.calibrate`` with ``search``). Where samples are judged by a score or by real images, solvers that
    add noise, guidance scales and intervals, and scaled skips are tried too; where they are judged by the distance to
    the model's own solution, these would change the solution itself.

    The winner is then compared with the sampler that comes with the model (its pipeline's scheduler; without one,
    what ``fewstep sample`` takes) on noises, and prompts where there are four or more, that the search has not seen.
    If it is not better beyond doubt, the recipe is the default's.

    What was measured is kept in an optuna study: a killed search goes on where it was, several processes that share
    a storage measure nothing twice, and the result does not depend on which process measured what.

    Args:
        model: an ``fs.Denoiser``, a pipeline as ``fs.models.from_pipeline`` gives it, or a ``Model``.
        calls: network calls of a sample.
        objective: ``fs.tuning.Score``, ``fs.tuning.DistanceToImages``; None: ``fs.tuning.ErrorToSolution``, the
            distance to the model's solution in many steps.
        cond: None for every class or prompt in turn; "none"; a class; or rows of conditions, tensors [n, …], which
            noises take in turn.
        budget: network calls, one a sample, guidance within a call not counted; or a time, "10min", for which the
            calls are counted that the model makes in it.
        reference_steps: calls of a solution; by default up to 60, as the budget allows.
        storage: where the search is kept, a URL of a database ("postgresql://…"); by default a SQLite file in
            ``folder``, or nowhere.
        folder: where solutions, and without ``storage`` the search, are kept; made if its parent is there.
        batch_size: samples in a network call.
        progress: called as progress(stage, tasks done, tasks in all, best value so far or None).

    Returns:
        The recipe, the verdict and what was tried.

    Raises:
        InputError: if the budget is too small for one candidate, the storage cannot be reached, a scorer fails, or
            settings do not fit the model. What was measured before is kept.
        NonFiniteStateError: if the network returns a value that is not finite.
        MissingPackageError: if optuna is not installed.
    """
    model = _as_model(model)
    calls, batch_size = whole("calls", calls, 2, 1000), whole("batch_size", batch_size, 1)
    if reference_steps is not None:
        reference_steps = whole("reference_steps", reference_steps, 2 * calls, 10_000)
    check_callback("progress", progress)
    goal = ErrorToSolution() if objective is None else objective
    conditions = ConditionRows.of(model.denoiser, cond)
    spent = _budget(budget)
    if isinstance(spent, int):  # Refused before anything is made.
        steps_of_solutions(spent, calls, to_solution=goal.to_solution, sets=goal.sets, reference_steps=reference_steps)
    place = None if folder is None else _made_folder(Path(folder))
    name = _name(model, calls, goal, conditions)
    subject = Subject(model, conditions, batch_size, 0, place, name.rpartition(" ")[2])
    url = storage if storage is not None or place is None else f"sqlite:///{place / 'journal.db'}"
    journal = Journal(url, name)
    search = Search(subject, goal, calls, journal, progress or (lambda *_: None), reference_steps)
    return search.run(spent)


def _as_model(model: Model | DataPredictor) -> Model:
    if isinstance(model, Model):
        return model
    if isinstance(model, PipelineDenoiser):
        return whole_model(model)
    if not isinstance(model, DataPredictor):
        raise InputError(
            f"model is {type(model).__name__}: give an fs.Denoiser, or fs.models.from_pipeline(pipe, prompt=…)."
        )
    checked_predictor(model, model.process)
    if isinstance(model, ClassifierFree):
        return Model(model, null_cond=model.null_cond)
    return Model(model)


def _budget(budget: int | str) -> int | float:
    """Return network calls as a whole number, or seconds as a float."""
    number = as_integer(budget)
    if number is None and isinstance(budget, str):
        text = budget.strip()
        if re.fullmatch("[0-9]{1,12}", text):
            number = int(text)
        found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*(s|min|h)", text)
        if found is not None and float(found[1]) > 0:
            return float(found[1]) * UNITS[found[2]]
    if number is None or number < 1:
        raise InputError(f"budget is {shown(budget)}: give network calls, as 2000, or a time, as 10min, 90s or 2h.")
    return number


def _made_folder(folder: Path) -> Path:
    if not folder.absolute().parent.is_dir():
        raise InputError(f"{str(folder)!r}: the folder above it does not exist; make it first.")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{str(folder)!r} cannot be made: {error.strerror or error}.") from error
    return folder


def _name(model: Model, calls: int, goal: Objective, conditions: ConditionRows) -> str:
    """Return the name of the study: all that decides on what is measured, but the budget."""
    denoiser = model.denoiser
    pipeline = (
        [denoiser.call, dict(denoiser.original.scheduler.config)] if isinstance(denoiser, PipelineDenoiser) else None
    )
    words = [
        model_fingerprint(model),
        repr(denoiser.process),
        calls,
        goal.identity,
        guidance_scale(denoiser),
        _digest(conditions.rows),
        _digest(pipeline),
        denoiser.shape,
    ]
    return f"fewstep tune {hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]}"


def _digest(value: Any) -> Any:
    """Return what tells conditions apart, JSON-able: tensors by their values, other objects by their class."""
    if isinstance(value, Tensor):
        held = value.detach().cpu().contiguous()
        held = held.float() if held.dtype == torch.bfloat16 else held
        return hashlib.sha256(f"{held.dtype}{tuple(held.shape)}".encode() + held.numpy().tobytes()).hexdigest()
    if isinstance(value, Mapping):
        return {str(name): _digest(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_digest(part) for part in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value if not isinstance(value, float) or math.isfinite(value) else repr(value)
    return type(value).__name__

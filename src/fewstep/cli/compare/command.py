"""``fewstep compare``: solvers × grids × steps on one model, with common seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import typer

from fewstep import grids, solvers
from fewstep.checks import as_word
from fewstep.cli.command import spelled
from fewstep.cli.compare.bench import Bench
from fewstep.cli.compare.cells import (
    Cell,
    Commands,
    Planned,
    check_skips,
    peer_cells,
    planned_cells,
    recipe_cells,
    scaled,
)
from fewstep.cli.compare.draws import Draws
from fewstep.cli.compare.population import Population
from fewstep.cli.compare.results import show, write
from fewstep.cli.compare.solution import Solution
from fewstep.cli.settings.compare import CompareSettings
from fewstep.cli.settings.options import names
from fewstep.cli.shared import manifest
from fewstep.cli.shared.conditions import conditions_of, parse_seeds, read_prompts
from fewstep.cli.shared.features import few_images, known_features, needed_features
from fewstep.cli.shared.models import load_model
from fewstep.cli.shared.profiles import read, rho
from fewstep.cli.shared.workers import Workers, workers
from fewstep.errors import InputError
from fewstep.fingerprint import guidance_scale, model_fingerprint
from fewstep.guidance import thresholds
from fewstep.metrics import Extractor
from fewstep.metrics.pixels import are_pictures
from fewstep.metrics.references import reference_hash, reference_summary
from fewstep.metrics.statistics import FeatureStatistics
from fewstep.models.model import Model
from fewstep.recipe import load_recipes
from fewstep.recommended import at_experts, recommended
from fewstep.storage import remove_leftovers

__all__ = ["compare", "split_specs"]


FORMAT = "fewstep-comparison/1"
FEW = 30
"""Noises below which an error is said to be of few."""


def compare(settings: CompareSettings) -> None:
    """Measure every solver on every grid at every number of steps."""
    seeds, texts = parse_seeds(None, settings.num), read_prompts(settings.prompt, settings.prompts)
    _check(settings)
    worker = workers(settings.device)
    with manifest.held_by(worker, settings.out):
        _compare(settings, seeds, texts, worker)
    worker.leave()


def _compare(settings: CompareSettings, seeds: Sequence[int], texts: list[str], worker: Workers) -> None:
    wanted, extractor = _measured(settings, worker.device)
    distances = [name for name in wanted if name != "error"]
    if distances and settings.num < 2:
        raise InputError(f"--num is {settings.num}: {distances[0]} needs at least 2 images.")
    model = load_model(settings, settings.guidance, worker.device)
    cells = _cells(model, settings)
    exact = solvers.UniPC(order=3).plan(grids.uniform_logsnr(model.denoiser.process, settings.exact_steps))
    conditions: Any = conditions_of(model, seeds, settings.class_, texts)
    if extractor is not None and model.denoiser.shape is not None and model.decode is None:
        if not are_pictures(model.denoiser.shape):
            raise InputError(
                f"the model's samples are {model.denoiser.shape}, and no pictures (1×H×W or 3×H×W), which "
                f"{distances[0]} compares: write --metrics error."
            )
        extractor(torch.zeros(1, *model.denoiser.shape))  # Refuses images that it does not take before any call.
    against = None
    if extractor is not None and "fd" in wanted:
        against = worker.lead(partial(reference_summary, settings.reference, extractor, settings.batch_size))
    common = {
        "model": settings.model,
        "model_hash": model_fingerprint(model),
        "thresholds": thresholds(model.denoiser),
        "seeds": manifest.spelled(seeds),
        "class": settings.class_,
        "prompts": texts,
        "guidance": guidance_scale(model.denoiser),
        "features": extractor.tag if extractor else "",
        "reference": settings.reference,
        "reference_hash": reference_hash(settings.reference) if "fd" in wanted else "",
        "exact_steps": settings.exact_steps,
        "metrics": wanted,
        "device": settings.device.partition(":")[0],
        "dtype": settings.dtype,
        **({"call": list(settings.call)} if settings.call else {}),
    }
    description = {"format": FORMAT, "settings": common, "versions": manifest.versions()}
    worker.lead(lambda: manifest.enter(settings.out, description, leads=worker.index == 0))
    if worker.index == 0:
        remove_leftovers(settings.out)
    draws = Draws(model, list(seeds), conditions, settings.batch_size)
    solution = Solution(settings.out, Planned(exact)) if "error" in wanted else None
    population = None
    if extractor is not None and "fd_solution" in wanted:
        others, place = range(settings.num, 2 * settings.num), settings.out / "population"
        place.mkdir(exist_ok=True)
        conditions = conditions_of(model, others, settings.class_, texts)
        drawn = Draws(model, list(others), conditions, settings.batch_size)
        population = Population(Solution(place, Planned(exact)), drawn, extractor)
    bench = Bench(settings.out, draws, extractor, against, solution, population)
    bench.measure(cells, worker)
    if worker.index == 0:
        rows = _rows(cells, bench.rows(cells), _commands(settings, common))
        _count_evaluations(rows, cells, model, conditions is not None)
        command = spelled("compare", settings)
        table = {"settings": common, "command": command, "versions": manifest.versions(), "rows": rows}
        pictures = [shown for cell in cells if (shown := bench.pictures(cell)) is not None]
        write(settings.out, table, pictures, bench.solution_pictures())
        show(rows)
        measured = wanted if any(row.get("error") is not None for row in rows) else distances
        for sentence in _caveats(settings, measured, against):
            typer.echo(sentence)
        typer.echo(f"{len(rows)} cells{worker.among} -> {settings.out / 'report.html'}")


def _measured(settings: CompareSettings, device: str) -> tuple[list[str], Extractor | None]:
    """Return the metrics that are wanted, and the features of the distances: fd where they are known.

    Raises:
        InputError: if a distance is asked for and no features are known.
    """
    known = known_features(settings.features, settings.model)
    wanted = ["error"] + ["fd"] * (known is not None) if settings.metrics is None else names(settings.metrics)
    distances = [name for name in wanted if name != "error"]
    if not distances:
        return wanted, None
    return wanted, needed_features(settings.features, settings.model, distances[0], device)


def _caveats(settings: CompareSettings, wanted: list[str], against: FeatureStatistics | None) -> list[str]:
    """Return what a reader of the table should know: what was not measured, and what few samples say."""
    sentences = []
    if settings.metrics is None and "fd" not in wanted and settings.features is None:
        sentences.append(
            f"fd was not measured, for no features are known for {settings.model!r}: --features and --reference "
            "choose them (docs/measure.md)."
        )
    few = None if against is None else few_images(settings.num, len(against.moments.mean), "fd")
    if few is not None:
        sentences.append(few)
    if "error" in wanted and settings.num < FEW:
        sentences.append(f"error of {settings.num} noises is of few: look at the intervals, or take {FEW} or more.")
    return sentences


def _check(settings: CompareSettings) -> None:
    """Refuse unknown solvers, grids, peers, recipes and skip profiles before a model is loaded."""
    for spec in split_specs("--solvers", settings.solvers) if settings.solvers else []:
        solvers.named(spec)
    for spec in [] if settings.grids is None else split_specs("--grids", settings.grids):
        for steps in settings.counts:
            grids.read(spec, steps)
    for spec in split_specs("--recipes", settings.recipes) if settings.recipes else []:
        load_recipes(spec)
    read(settings.skip)
    if settings.peers:
        from fewstep.integrations.diffusers.peers import PEERS  # It needs diffusers.

        for name in split_specs("--peers", settings.peers):
            as_word("peer", name, PEERS)


def _cells(model: Model, settings: CompareSettings) -> list[Cell]:
    counts, boundary = settings.counts, getattr(model.denoiser, "boundary", None)
    rules = [recommended(model.denoiser.process, steps, latent=model.decode is not None) for steps in counts]
    if settings.solvers is None:
        chosen = list(dict.fromkeys([*(rule.solver for rule in rules), "dpmpp", "ddim"]))
    else:
        chosen = split_specs("--solvers", settings.solvers) if settings.solvers else []
    if settings.grids is None:
        places = list(dict.fromkeys([*(rule.grid for rule in rules), "karras", "uniform_logsnr"]))
    else:
        places = [at_experts(place, boundary) for place in split_specs("--grids", settings.grids)]
    found = planned_cells(model.denoiser, chosen, places, counts)
    found += recipe_cells(model.denoiser, split_specs("--recipes", settings.recipes) if settings.recipes else [])
    found += peer_cells(model.denoiser, split_specs("--peers", settings.peers) if settings.peers else [], counts)
    if not found:
        raise InputError("there is nothing to compare: give --solvers, --recipes or --peers.")
    found = found if settings.skip is None else scaled(found, settings.skip)
    check_skips(found, model.denoiser)
    return found


def _commands(settings: CompareSettings, common: Mapping[str, Any]) -> Commands:
    """Return the command lines that give the samples again."""

    def words(*names: str) -> list[str]:
        return [word for name in names for word in (f"--{name.replace('_', '-')}", f"{common[name]}")]

    led_by = {"--prompt": settings.prompt, "--prompts": settings.prompts}
    extra = [str(word) for option, value in led_by.items() if value is not None for word in (option, value)]
    extra += [word for one in settings.call for word in ("--call", one)]
    extra += ["--trust-pickle"] if settings.trust_pickle else []
    measured = ["--num", str(settings.num), "--metrics", ",".join(common["metrics"])]
    measured += [] if settings.features is None else ["--features", settings.features]
    return Commands(
        shared=(*words("model", "class", "guidance", "device", "dtype"), *extra),
        generate=tuple(words("seeds")),
        compare=(*measured, *words("reference", "exact_steps")),
    )


def _rows(cells: list[Cell], measured: list[dict[str, Any]], commands: Commands) -> list[dict[str, Any]]:
    """Return the table's rows: what a cell is, what was measured, where its times lie, how to make it again."""
    rows = []
    for cell, found in zip(cells, measured, strict=True):
        levels = [level if level < float("inf") else None for level in cell.sampler.levels]
        command = commands.again(cell, found["batch_size"])
        what = {"solver": cell.solver, "grid": cell.grid, "steps": cell.steps, "cell": cell.name}
        scaling = {} if cell.skip is None else {"skip": rho(cell.skip)}
        rows.append({**what, **scaling, **found, "levels": levels, "command": command})
    return rows


def _count_evaluations(rows: list[dict[str, Any]], cells: list[Cell], model: Model, conditional: bool) -> None:
    """Enter the evaluations of the network that a sample takes, where guidance makes them more than the calls."""
    counts = [sum(model.denoiser.evaluations(t, conditional) for t in cell.sampler.call_times) for cell in cells]
    if any(count != row["nfe"] for count, row in zip(counts, rows, strict=True)):
        for row, count in zip(rows, counts, strict=True):
            row["evaluations"] = count


def split_specs(option: str, text: str) -> list[str]:
    """Return the specs of "unipc:order=2,variant=bh1,ddim": what has "=" and no name belongs to the one before.

    Raises:
        InputError: if there is none, or one twice.
    """
    specs: list[str] = []
    for piece in (piece.strip() for piece in text.split(",")):
        name, equals, _ = piece.partition("=")
        if equals and ":" not in name and specs:
            specs[-1] += f",{piece}"
        elif piece:
            specs.append(piece)
    if not specs or len(set(specs)) != len(specs):
        raise InputError(f"{option} is {text!r}: give names, each once, as unipc,ddim.")
    return specs

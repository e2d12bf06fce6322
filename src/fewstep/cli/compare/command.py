"""``fewstep compare``: solvers × grids × steps on one model, with common seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewstep.cli.shared.options import (
    BatchSize,
    ClassOfSeed,
    Device,
    Dtype,
    Guidance,
    ModelName,
    Prompt,
    Prompts,
    TrustPickle,
)
from fewstep.errors import InputError, unknown_name

if TYPE_CHECKING:
    from fewstep.cli.compare.cells import Cell, Commands
    from fewstep.models.model import Model

__all__ = ["compare", "split_specs"]

METRICS = ("error", "fd")
FORMAT = "fewstep-comparison/1"


def compare(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="A folder for the results; the same command again goes on in it.")],
    model: ModelName = "fashion-mnist",
    solvers: Annotated[str, typer.Option(help="Solvers, as unipc,dpmpp:order=3,ddim.")] = "unipc,dpmpp,ddim",
    grids: Annotated[str, typer.Option(help="Grids, as karras,uniform_logsnr.")] = "karras,uniform_logsnr",
    steps: Annotated[str, typer.Option(help="Numbers of steps, as 5,8,10.")] = "5,8,10",
    recipes: Annotated[str, typer.Option(help="Recipes of fewstep calibrate to compare too: a.json,b.json.")] = "",
    peers: Annotated[
        str,
        typer.Option(
            help="Diffusers' own schedulers to compare too: unipc,dpmpp2,dpmpp3,deis,sa,unipc_karras,dpmpp2_karras."
        ),
    ] = "",
    metrics: Annotated[str, typer.Option(help="Some of error,fd.")] = "error,fd",
    num: Annotated[int, typer.Option(help="Samples a cell, with the seeds from 0 on.")] = 256,
    class_: ClassOfSeed = "each",
    prompt: Prompt = None,
    prompts: Prompts = None,
    guidance: Guidance = 1.0,
    features: Annotated[str, typer.Option(help="The features of fd, as in fewstep evaluate.")] = "fashion-mnist",
    reference: Annotated[str, typer.Option(help="The images of fd, as in fewstep evaluate.")] = "fashion-mnist",
    exact_steps: Annotated[int, typer.Option(help="Steps of the reference solution of error (UniPC, order 3).")] = 100,
    batch_size: BatchSize = 64,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    trust_pickle: TrustPickle = False,
) -> None:
    """Measure every solver on every grid at every number of steps, into report.html, table.csv and table.json.

    error is the RMSE to the solution of the same noise in many steps, with a 95 % bootstrap interval; a solver that
    adds noise has none. fd is the Fréchet distance to the reference. Several processes share the cells: accelerate
    launch --multi_gpu --num_processes 2 -m fewstep.cli compare …

    Example: fewstep compare --solvers unipc,dpmpp,ddim --grids karras --steps 5,8,10 --num 1000 --out table
    """
    import torch

    from fewstep import grids as grid_names
    from fewstep import metrics as measuring
    from fewstep import solvers as solver_names
    from fewstep.cli.compare.bench import Bench
    from fewstep.cli.compare.cells import Planned
    from fewstep.cli.compare.draws import Draws
    from fewstep.cli.compare.results import show, spelled_command, write
    from fewstep.cli.compare.solution import Solution
    from fewstep.cli.shared import manifest
    from fewstep.cli.shared.conditions import conditions_of, parse_seeds, read_prompts
    from fewstep.cli.shared.models import load_model
    from fewstep.cli.shared.workers import workers
    from fewstep.fingerprint import model_fingerprint
    from fewstep.guidance import thresholds
    from fewstep.metrics.references import reference_hash, reference_summary
    from fewstep.storage import remove_leftovers

    wanted = [name.strip() for name in metrics.split(",") if name.strip()]
    for name in wanted or [metrics]:
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
    counts = _numbers(steps)
    if batch_size < 1 or exact_steps < 1:
        raise InputError(f"--batch-size is {batch_size}, --exact-steps {exact_steps}: both must be at least 1.")
    seeds, texts = parse_seeds(None, num), read_prompts(prompt, prompts)
    worker = workers(device)
    loaded = load_model(model, guidance=guidance, device=worker.device, dtype=dtype, trust_pickle=trust_pickle)
    cells = _cells(loaded, solvers, grids, counts, recipes, peers)
    if "fd" in wanted and len(seeds) < 2:
        raise InputError(f"--num is {len(seeds)}: fd needs at least 2 images.")
    exact = solver_names.UniPC(order=3).plan(grid_names.uniform_logsnr(loaded.denoiser.process, exact_steps))
    conditions: Any = conditions_of(loaded, seeds, class_, texts)
    extractor = measuring.features(features, worker.device) if "fd" in wanted else None
    if extractor is not None and loaded.denoiser.shape is not None and loaded.decode is None:
        extractor(torch.zeros(1, *loaded.denoiser.shape))  # Refuses images that it does not take before any call.
    against = None if extractor is None else worker.lead(lambda: reference_summary(reference, extractor, batch_size))
    common = {"model": model, "model_hash": model_fingerprint(loaded), "thresholds": thresholds(loaded.denoiser),
              "seeds": manifest.spelled(seeds), "class": class_,
              "prompts": texts, "guidance": guidance, "features": extractor.tag if extractor else "",
              "reference": reference, "reference_hash": reference_hash(reference) if extractor else "",
              "exact_steps": exact_steps, "metrics": wanted,
              "device": device.partition(":")[0], "dtype": dtype}  # fmt: skip
    description = {"format": FORMAT, "settings": common, "versions": manifest.versions()}
    worker.lead(lambda: manifest.enter(out, description, leads=worker.index == 0))
    if worker.index == 0:
        remove_leftovers(out)
    draws = Draws(loaded, list(seeds), conditions, batch_size)
    bench = Bench(out, draws, extractor, against, Solution(out, Planned(exact)) if "error" in wanted else None)
    bench.measure(cells, worker)
    if worker.index == 0:
        led_by = {"--prompt": prompt, "--prompts": prompts}
        extra = [str(word) for option, value in led_by.items() if value is not None for word in (option, value)]
        commands = _commands(common, features, extra + (["--trust-pickle"] if trust_pickle else []))
        rows = _rows(cells, bench.rows(cells), commands)
        table = {"settings": common, "command": spelled_command(context), "versions": manifest.versions(), "rows": rows}
        write(out, table, [bench.pictures(cell) for cell in cells], bench.solution_pictures())
        show(rows)
        typer.echo(f"{len(rows)} cells{worker.among} -> {out / 'report.html'}")
    worker.leave()


def _cells(model: Model, solvers: str, grids: str, counts: list[int], recipes: str, peers: str) -> list[Cell]:
    from fewstep.cli.compare.cells import peer_cells, planned_cells, recipe_cells

    found = planned_cells(
        model.denoiser,
        split_specs("--solvers", solvers) if solvers else [],
        split_specs("--grids", grids),
        counts,
    )
    found += recipe_cells(model.denoiser, split_specs("--recipes", recipes) if recipes else [])
    found += peer_cells(model.denoiser, split_specs("--peers", peers) if peers else [], counts)
    if not found:
        raise InputError("there is nothing to compare: give --solvers, --recipes or --peers.")
    return found


def _commands(common: Mapping[str, Any], features: str, extra: Sequence[str]) -> Commands:
    """Return the command lines of these settings; ``features`` and ``extra`` are as they were asked for."""
    from fewstep.cli.compare.cells import Commands
    from fewstep.cli.shared.conditions import parse_seeds

    def words(*names: str) -> list[str]:
        return [word for name in names for word in (f"--{name.replace('_', '-')}", f"{common[name]}")]

    measured = ["--num", str(len(parse_seeds(common["seeds"], None))), "--metrics", ",".join(common["metrics"])]
    return Commands(
        shared=(*words("model", "class", "guidance", "device", "dtype"), *extra),
        generate=tuple(words("seeds")),
        compare=(*measured, "--features", features, *words("reference", "exact_steps")),
    )


def _rows(cells: list[Cell], measured: list[dict[str, Any]], commands: Commands) -> list[dict[str, Any]]:
    """Return the table's rows: what a cell is, what was measured, where its times lie, how to make it again."""
    rows = []
    for cell, found in zip(cells, measured, strict=True):
        levels = [level if level < float("inf") else None for level in cell.sampler.levels]
        command = commands.again(cell, found["batch_size"])
        what = {"solver": cell.solver, "grid": cell.grid, "steps": cell.steps, "cell": cell.name}
        rows.append({**what, **found, "levels": levels, "command": command})
    return rows


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


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--steps is {text!r}: give whole numbers of at least 1, as 5,8,10.")
    return list(dict.fromkeys(int(part) for part in parts))

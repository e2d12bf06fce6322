"""``fewstep compare``: solvers × grids × steps on one model, with common seeds."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Any

import typer

from fewstep.cli.models import HELP
from fewstep.errors import InputError, unknown_name

__all__ = ["compare", "split_specs"]

METRICS = ("error", "fd")
FORMAT = "fewstep-comparison/1"
COLUMNS = ("solver", "grid", "steps", "nfe", "error", "error_low", "error_high", "fd")


def compare(
    out: Annotated[Path, typer.Option(help="A folder for the table; the same command again goes on in it.")],
    model: Annotated[str, typer.Option(help=HELP)] = "fashion-mnist",
    solvers: Annotated[str, typer.Option(help="Solvers, as unipc,dpmpp:order=3,ddim.")] = "unipc,dpmpp,ddim",
    grids: Annotated[str, typer.Option(help="Grids, as karras,uniform_logsnr.")] = "karras,uniform_logsnr",
    steps: Annotated[str, typer.Option(help="Numbers of steps, as 5,8,10.")] = "5,8,10",
    recipes: Annotated[str, typer.Option(help="Recipes of fewstep calibrate to compare too: a.json,b.json.")] = "",
    metrics: Annotated[str, typer.Option(help="Some of error,fd.")] = "error,fd",
    num: Annotated[int, typer.Option(help="Samples a cell, with the seeds from 0 on.")] = 256,
    class_: Annotated[
        str, typer.Option("--class", help="A class number, 'each' for seed modulo classes, 'none' for no class.")
    ] = "each",
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance scale; 1 is none.")] = 1.0,
    features: Annotated[str, typer.Option(help="The features of fd, as in fewstep evaluate.")] = "fashion-mnist",
    reference: Annotated[str, typer.Option(help="The images of fd, as in fewstep evaluate.")] = "fashion-mnist",
    exact_steps: Annotated[int, typer.Option(help="Steps of the reference solution of error (UniPC, order 3).")] = 100,
    batch_size: Annotated[int, typer.Option(help="Samples at a time.")] = 64,
    device: Annotated[str, typer.Option(help="Where the network runs: cpu, cuda.")] = "cpu",
    trust_pickle: Annotated[bool, typer.Option(help="Load a pickle, which runs the code in it.")] = False,
) -> None:
    """Measure every solver on every grid at every number of steps, into table.csv and table.json.

    error is the RMSE to the solution of the same noise in many steps, with a 95 % bootstrap interval; a solver that
    adds noise has none. fd is the Fréchet distance to the reference.

    Example: fewstep compare --solvers unipc,dpmpp,ddim --grids karras --steps 5,8,10 --num 1000 --out table
    """
    from fewstep import grids as grid_names
    from fewstep import metrics as measuring
    from fewstep import solvers as solver_names
    from fewstep.cli import manifest
    from fewstep.cli.bench import Bench, Cell
    from fewstep.cli.conditions import conditions_of, parse_seeds
    from fewstep.cli.models import load_model
    from fewstep.cli.recipes import recipe_plan
    from fewstep.metrics.evaluate import reference_summary

    wanted = [name.strip() for name in metrics.split(",") if name.strip()]
    for name in wanted or [metrics]:
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
    counts = _numbers(steps)
    if batch_size < 1 or exact_steps < 1:
        raise InputError(f"--batch-size is {batch_size}, --exact-steps {exact_steps}: both must be at least 1.")
    seeds = parse_seeds(None, num)
    chosen = {spec: solver_names.named(spec) for spec in split_specs("--solvers", solvers)}
    loaded = load_model(model, guidance=guidance, device=device, trust_pickle=trust_pickle)
    process = loaded.denoiser.process
    cells = [
        Cell(solver, grid, count, chosen[solver].plan(grid_names.named(grid, process, count, solver=chosen[solver])))
        for solver in chosen
        for grid in split_specs("--grids", grids)
        for count in counts
    ]
    for path in split_specs("--recipes", recipes) if recipes else []:
        plan = recipe_plan(Path(path), loaded.denoiser)
        cells.append(Cell(path, "its own", plan.steps, plan))
    exact = solver_names.UniPC(order=3).plan(grid_names.uniform_logsnr(process, exact_steps))
    conditions: Any = conditions_of(loaded, seeds, class_, [])
    extractor = measuring.features(features) if "fd" in wanted else None
    against = None if extractor is None else reference_summary(reference, extractor, batch_size)
    common = {"model": model, "model_hash": loaded.weights_hash(), "seeds": manifest.spelled(seeds), "class": class_,
              "guidance": guidance, "features": extractor.tag if extractor else "", "reference": reference,
              "exact_steps": exact_steps, "metrics": wanted, "device": device.partition(":")[0]}  # fmt: skip
    manifest.enter(out, {"format": FORMAT, "settings": common, "versions": manifest.versions()})
    bench = Bench(out, loaded, list(seeds), conditions, batch_size, extractor, against, wanted)
    rows = bench.rows(cells, exact)
    _write(out, rows, common)
    _show(rows)


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


def _write(folder: Path, rows: list[dict[str, Any]], common: dict[str, Any]) -> None:
    from fewstep.cli.bench import keep_json
    from fewstep.cli.images import written_whole
    from fewstep.cli.manifest import versions

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    written_whole(folder / "table.csv", write)
    keep_json(folder / "table.json", {"settings": common, "versions": versions(), "rows": rows})


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    best = {
        (name, row["nfe"]): min(r[name] for r in rows if r["nfe"] == row["nfe"] and name in r)
        for row in rows
        for name in METRICS
        if name in row
    }
    table = Table(*COLUMNS[:5], "interval", "fd", box=None)
    for row in rows:
        shown = {
            name: f"[bold]{row[name]:.4g}[/]" if row[name] == best[name, row["nfe"]] else f"{row[name]:.4g}"
            for name in METRICS
            if name in row
        }
        interval = f"{row['error_low']:.4g} … {row['error_high']:.4g}" if "error" in row else ""
        words = (row["solver"], row["grid"], str(row["steps"]), str(row["nfe"]))
        table.add_row(*words, shown.get("error", ""), interval, shown.get("fd", ""))
    Console().print(table)

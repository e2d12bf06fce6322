"""``fewstep skip search``: the best ρ for a model, a solver and a number of steps, as a profile."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewstep.cli.shared.options import (
    SOLVER,
    BatchSize,
    Device,
    Dtype,
    Grid,
    Guidance,
    ModelName,
    Prompts,
    Solver,
    Steps,
    TrustPickle,
)
from fewstep.cli.skip.real_images import FEATURES
from fewstep.cli.skip.real_images import HELP as DATA
from fewstep.errors import InputError, unknown_name

if TYPE_CHECKING:
    from fewstep.skip_analysis import SearchResult

__all__ = ["search"]

METRICS = ("fd", "feature-loss")


def search(
    out: Annotated[Path, typer.Option(help="The profile, a .json file; the plot is a .png of the same name.")],
    model: ModelName = "fashion-mnist",
    solver: Solver = SOLVER,
    grid: Grid = "optimized",
    steps: Steps = 8,
    metric: Annotated[str, typer.Option(help="fd of samples, or feature-loss of real images (with --data).")] = "fd",
    bottom: Annotated[str, typer.Option(help="ρ of the deepest skip: a range, 0.5:1.0, or a number.")] = "0.5:1.0",
    top: Annotated[str, typer.Option(help="ρ of the outermost skip: a number, or a range to search too.")] = "1.0",
    method: Annotated[str, typer.Option(help="golden (golden sections), or grid (even).")] = "golden",
    points: Annotated[int, typer.Option(help="Evaluations of each range, 2 or more.")] = 6,
    num: Annotated[int, typer.Option(help="Samples, or real images, of each evaluation.")] = 500,
    seed: Annotated[int, typer.Option(help="The first sample's seed; all evaluations have the same.")] = 0,
    features: Annotated[str | None, typer.Option(help=FEATURES)] = None,
    reference: Annotated[str, typer.Option(help="What fd compares with: an .npz, a folder.")] = "fashion-mnist",
    data: Annotated[Path | None, typer.Option(help=DATA)] = None,
    class_: Annotated[
        str | None, typer.Option("--class", help="A class, none, each (fd) or data (feature-loss), the defaults.")
    ] = None,
    prompts: Prompts = None,
    guidance: Guidance = 1.0,
    batch_size: BatchSize = 64,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    trust_pickle: TrustPickle = False,
) -> None:
    """Search for the ρ that suits a model, a solver and a number of steps; sample with --skip and what is written.

    Example: fewstep skip search --steps 8 --metric fd --bottom 0.5:1.0 --num 500 --out profile.json
    """
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    from fewstep import grids, solvers, zoo
    from fewstep.cli.shared.conditions import read_prompts
    from fewstep.cli.shared.models import load_model
    from fewstep.cli.shared.profiles import origin
    from fewstep.cli.shared.progress import bar
    from fewstep.cli.skip.objective import Setting
    from fewstep.cli.skip.real_images import features_for
    from fewstep.skip_analysis import Point
    from fewstep.skip_analysis import search as searched
    from fewstep.skip_analysis.search import evaluations

    if out.suffix != ".json" or not out.absolute().parent.is_dir() or out.is_dir():
        raise InputError(f"--out is {str(out)!r}: write a name that ends in .json, in a folder that exists.")
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    if num < 2 or batch_size < 1 or seed < 0:
        raise InputError(f"--num is {num}, --batch-size {batch_size}, --seed {seed}: at least 2, 1 and 0 are needed.")
    if (data is None) != (metric == "fd"):
        raise InputError("feature-loss needs real images, --data; fd compares samples with --reference instead.")
    ranges = {"bottom": _range("--bottom", bottom), "top": _range("--top", top)}
    total = evaluations(**ranges, method=method, points=points)
    chosen, texts = solvers.named(solver), read_prompts(None, prompts)
    loaded = load_model(model, guidance=guidance, device=device, dtype=dtype, trust_pickle=trust_pickle)
    plan = chosen.plan(grids.named(grid, loaded.denoiser.process, steps, solver=chosen))
    extractor = features_for(features, model, tuple(zoo.MODELS), device)
    if extractor is None:
        raise InputError(f"the features of {model!r} are not known: give --features, of its kind of images.")
    setting = Setting(loaded, plan, extractor, reference, data, class_, texts, num, seed, batch_size)
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[shown]}")
    with bar(*columns) as progress:
        task = progress.add_task("searching", total=None, shown="")
        objective, calls = setting.objective(lambda: progress.advance(task))
        progress.update(task, total=calls * total)

        def tell(point: Point) -> None:
            progress.update(task, shown=f"ρ {point.bottom:.3g} … {point.top:.3g}: {metric} {point.value:.4g}")

        seeds = range(seed, seed + num)
        found = searched(loaded.denoiser, objective, seeds, **ranges, method=method, points=points, tell=tell)
    settings = {"solver": solver, "grid": grid, "steps": steps, "metric": metric, "bottom": bottom, "top": top,
                "method": method, "points": points, "num": num, "seed": seed, "features": extractor.tag,
                "reference": reference if data is None else None, "data": data and data.name,
                "class": setting.classes, "prompts": texts, "guidance": guidance,
                "device": device.partition(":")[0], "dtype": dtype}  # fmt: skip
    _write(out, found, metric, {**origin(model, loaded.denoiser), "settings": settings})
    _show(found, metric, out)


def _range(option: str, text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        return float(low), float(high or low)
    except ValueError as error:
        raise InputError(f"{option} is {text!r}: write a range, as 0.5:1.0, or a number.") from error


def _write(out: Path, found: SearchResult, metric: str, origin: dict[str, Any]) -> None:
    from fewstep.cli.shared.manifest import versions
    from fewstep.cli.skip.figures import draw_search
    from fewstep.storage import write_whole

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
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
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

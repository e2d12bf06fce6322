"""``fewstep sample``: a few samples of a model, as a picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewstep.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from fewstep.denoiser import DataPredictor
    from fewstep.plan import Plan

__all__ = ["sample"]


def sample(
    model: Annotated[str, typer.Option(help="An embedded model; --list shows them.")] = "fashion-mnist",
    solver: Annotated[str, typer.Option(help="A solver, with settings if wanted: unipc, sa:tau=0.5.")] = "unipc",
    grid: Annotated[str, typer.Option(help="A time grid, with settings if wanted, or a .json file.")] = "karras",
    steps: Annotated[int, typer.Option(help="Intervals of the grid, 1 or more.")] = 8,
    num: Annotated[int, typer.Option(help="How many samples, 1 or more.")] = 16,
    seed: Annotated[int, typer.Option(help="The first sample's seed; sample i has seed + i.")] = 0,
    class_: Annotated[
        str, typer.Option("--class", help="A class number, 'each' for all in turn, 'none' for no class.")
    ] = "each",
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance scale; 1 is none.")] = 1.0,
    batch_size: Annotated[int, typer.Option(help="Samples at a time; results do not depend on it.")] = 64,
    device: Annotated[str, typer.Option(help="Where the network runs: cpu, cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="A .png (one picture), a .npz, or a folder for PNGs.")] = Path(
        "samples.png"
    ),
    list_: Annotated[bool, typer.Option("--list", help="Show solvers, grids and models, and stop.")] = False,
) -> None:
    """Draw samples of a model into a picture.

    Example: fewstep sample --model fashion-mnist --solver unipc --grid karras --steps 8 --class 7 --guidance 2
    """
    from fewstep.cli.images import check_writable, to_uint8, write_images

    if list_:
        from fewstep.cli.catalogue import show

        show()
        return
    if num < 1 or batch_size < 1:
        raise InputError(f"--num is {num}, --batch-size {batch_size}: both must be at least 1.")
    check_writable(out)
    predictor, plan = _prepare(model, solver, grid, steps, guidance, device)
    labels = _labels(class_, num, predictor.num_classes)
    seeds = [seed + i for i in range(num)]
    began = time.perf_counter()
    images = to_uint8(_draw(predictor, plan, seeds, labels, batch_size))
    seconds = time.perf_counter() - began
    write_images(out, images, seeds, labels)
    typer.echo(
        f"{solver} on {grid}, {plan.steps} steps, {plan.nfe} network calls: {num} images, "
        f"{num / seconds:.1f} images/s -> {out}"
    )


def _prepare(
    model: str, solver: str, grid: str, steps: int, guidance: float, device: str
) -> tuple[DataPredictor, Plan]:
    """Return the model as a denoiser and the plan; names are checked before the model is loaded."""
    from fewstep import grids, solvers, zoo

    chosen = solvers.named(solver)
    predictor = zoo.load(model, guidance_scale=guidance, device=device)
    return predictor, chosen.plan(grids.named(grid, predictor.process, steps))


def _labels(text: str, num: int, num_classes: int | None) -> list[int] | None:
    """Return a class for each sample, or None for no class."""
    if text == "none" or (num_classes is None and text == "each"):
        return None
    if num_classes is None:
        raise InputError(f"--class is {text!r}, but this model has no classes: leave it out.")
    if text == "each":
        return [i % num_classes for i in range(num)]
    if not text.lstrip("-").isdigit():
        raise InputError(f"--class is {text!r}: give a number from 0 to {num_classes - 1}, 'each' or 'none'.")
    if not 0 <= int(text) < num_classes:
        raise InputError(f"--class is {text}: the model has the classes 0 to {num_classes - 1}.")
    return [int(text)] * num


def _draw(predictor: DataPredictor, plan: Plan, seeds: list[int], labels: list[int] | None, batch_size: int) -> Tensor:
    """Return the samples, batch by batch, under a progress bar."""
    import torch
    from rich.progress import Progress

    import fewstep as fs

    parts = []
    with Progress(transient=True) as progress:
        task = progress.add_task("sampling", total=plan.steps * -(-len(seeds) // batch_size))
        for start in range(0, len(seeds), batch_size):
            some = seeds[start : start + batch_size]
            x_T = fs.initial_state(  # noqa: N806
                fs.TimeGrid(plan.process, plan.times), predictor.shape or (), some, device=predictor.device
            )
            cond = None if labels is None else torch.tensor(labels[start : start + batch_size])
            parts.append(
                fs.execute(
                    plan, predictor, x_T, seeds=some, cond=cond, callback=lambda *_: progress.advance(task)
                ).cpu()
            )
    return torch.cat(parts)

"""``fewstep sample``: a few samples of a model, as a picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewstep.cli.models import HELP
from fewstep.cli.recipes import HELP as RECIPE
from fewstep.cli.skip_profile import HELP as SKIP
from fewstep.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from fewstep.integrations.model import Model
    from fewstep.plan import Plan

__all__ = ["sample"]


def sample(
    context: typer.Context,
    model: Annotated[str, typer.Option(help=HELP)] = "fashion-mnist",
    solver: Annotated[str, typer.Option(help="A solver, with settings if wanted: unipc, sa:tau=0.5.")] = "unipc",
    grid: Annotated[str, typer.Option(help="A time grid, with settings if wanted, or a .json file.")] = "optimized",
    steps: Annotated[int, typer.Option(help="Intervals of the grid, 1 or more.")] = 8,
    recipe: Annotated[Path | None, typer.Option(help=RECIPE)] = None,
    skip: Annotated[Path | None, typer.Option(help=SKIP)] = None,
    num: Annotated[int, typer.Option(help="How many samples, 1 or more.")] = 16,
    seed: Annotated[int, typer.Option(help="The first sample's seed; sample i has seed + i.")] = 0,
    class_: Annotated[
        str, typer.Option("--class", help="A class number, 'each' for seed modulo classes, 'none' for no class.")
    ] = "each",
    prompt: Annotated[str | None, typer.Option(help="What to show, for a model that is led by prompts.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A file of prompts, one a line; seeds take them in turn.")
    ] = None,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance scale; 1 is none.")] = 1.0,
    batch_size: Annotated[int, typer.Option(help="Samples at a time; results do not depend on it.")] = 64,
    device: Annotated[str, typer.Option(help="Where the network runs: cpu, cuda.")] = "cpu",
    trust_pickle: Annotated[bool, typer.Option(help="Load a pickle, which runs the code in it.")] = False,
    out: Annotated[Path, typer.Option(help="A .png (one picture), a .npz, or a folder for PNGs.")] = Path(
        "samples.png"
    ),
    list_: Annotated[bool, typer.Option("--list", help="Show solvers, grids and models, and stop.")] = False,
) -> None:
    """Draw samples of a model into a picture.

    Example: fewstep sample --model fashion-mnist --solver unipc --grid karras --steps 8 --class 7 --guidance 2
    """
    from fewstep import grids, solvers
    from fewstep.cli.conditions import conditions_of, read_prompts
    from fewstep.cli.images import check_writable, to_uint8, write_images
    from fewstep.cli.models import load_model
    from fewstep.cli.recipes import recipe_plan, refuse_besides
    from fewstep.cli.skip_profile import tuned_by

    if list_:
        from fewstep.cli.catalogue import show

        show()
        return
    if num < 1 or batch_size < 1:
        raise InputError(f"--num is {num}, --batch-size {batch_size}: both must be at least 1.")
    check_writable(out)
    if recipe is not None:
        refuse_besides(context, recipe, ("solver", "grid", "steps"))
    texts, chosen = read_prompts(prompt, prompts), solvers.named(solver)
    loaded = load_model(model, guidance=guidance, device=device, trust_pickle=trust_pickle)
    if recipe is None:
        plan = chosen.plan(grids.named(grid, loaded.denoiser.process, steps, solver=chosen))
    else:
        plan = recipe_plan(recipe, loaded.denoiser)
    if skip is not None:
        tuned_by(skip, loaded.denoiser)
    seeds = [seed + i for i in range(num)]
    conditions: Any = conditions_of(loaded, seeds, class_, texts)
    began = time.perf_counter()
    images = to_uint8(_draw(loaded, plan, seeds, conditions, batch_size))
    seconds = time.perf_counter() - began
    write_images(out, images, seeds, None if texts else conditions)
    typer.echo(
        f"{recipe or f'{solver} on {grid}'}, {plan.steps} steps, {plan.nfe} network calls: {num} images, "
        f"{num / seconds:.1f} images/s -> {out}"
    )


def _draw(model: Model, plan: Plan, seeds: list[int], conditions: Any, batch_size: int) -> Tensor:
    """Return the samples, batch by batch, under a progress bar."""
    import torch
    from rich.progress import Progress

    parts = []
    with Progress(transient=True) as progress:
        task = progress.add_task("sampling", total=plan.steps * -(-len(seeds) // batch_size))
        for start in range(0, len(seeds), batch_size):
            part = slice(start, start + batch_size)
            images = model.draw(plan, seeds[part], conditions and conditions[part], lambda *_: progress.advance(task))
            parts.append(images.cpu())
    return torch.cat(parts)

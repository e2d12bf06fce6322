"""``fewstep sample``: a few samples of a model, as a picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewstep.cli.shared.options import (
    SOLVER,
    BatchSize,
    ClassOfSeed,
    Device,
    Dtype,
    Grid,
    Guidance,
    ModelName,
    Prompt,
    Prompts,
    Recipe,
    Skip,
    Solver,
    Steps,
    TrustPickle,
)
from fewstep.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from fewstep.models.model import Model
    from fewstep.plan import Plan

__all__ = ["sample"]


def sample(
    context: typer.Context,
    model: ModelName = "fashion-mnist",
    solver: Solver = SOLVER,
    grid: Grid = "optimized",
    steps: Steps = 8,
    recipe: Recipe = None,
    skip: Skip = None,
    num: Annotated[int, typer.Option(help="How many samples, 1 or more.")] = 16,
    seed: Annotated[int, typer.Option(help="The first sample's seed; sample i has seed + i.")] = 0,
    class_: ClassOfSeed = "each",
    prompt: Prompt = None,
    prompts: Prompts = None,
    guidance: Guidance = 1.0,
    batch_size: BatchSize = 64,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    trust_pickle: TrustPickle = False,
    out: Annotated[Path, typer.Option(help="A .png (one picture), a .npz, or a folder for PNGs.")] = Path(
        "samples.png"
    ),
    list_: Annotated[bool, typer.Option("--list", help="Show solvers, grids and models, and stop.")] = False,
) -> None:
    """Draw samples of a model into a picture.

    Example: fewstep sample --model fashion-mnist --solver unipc:order=2 --grid karras --steps 8 --class 7 --guidance 2
    """
    from fewstep import grids, solvers
    from fewstep.cli.shared.conditions import conditions_of, read_prompts
    from fewstep.cli.shared.images import check_writable, to_uint8, write_images
    from fewstep.cli.shared.models import load_model
    from fewstep.cli.shared.profiles import tuned_by
    from fewstep.cli.shared.recipes import recipe_plan, refuse_besides

    if list_:
        from fewstep.cli.shared.catalogue import show

        show()
        return
    if num < 1 or batch_size < 1:
        raise InputError(f"--num is {num}, --batch-size {batch_size}: both must be at least 1.")
    check_writable(out)
    if recipe is not None:
        refuse_besides(context, recipe, ("solver", "grid", "steps"))
    texts, chosen = read_prompts(prompt, prompts), solvers.named(solver)
    loaded = load_model(model, guidance=guidance, device=device, dtype=dtype, trust_pickle=trust_pickle)
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

    from fewstep.cli.shared.progress import bar

    parts = []
    with bar() as progress:
        task = progress.add_task("sampling", total=plan.steps * -(-len(seeds) // batch_size))
        for start in range(0, len(seeds), batch_size):
            part = slice(start, start + batch_size)
            images = model.draw(plan, seeds[part], conditions and conditions[part], lambda *_: progress.advance(task))
            parts.append(images.cpu())
    return torch.cat(parts)

"""``fewstep calibrate``: a plan fitted to a model, kept as a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewstep.cli.shared.options import (
    SOLVER,
    BatchSize,
    ClassOfSeed,
    Device,
    Dtype,
    ModelName,
    Prompt,
    Prompts,
    Steps,
    TrustPickle,
)
from fewstep.errors import InputError

if TYPE_CHECKING:
    from fewstep.models.model import Model

__all__ = ["calibrate"]


def calibrate(
    out: Annotated[Path, typer.Option(help="The recipe, a .json file.")],
    model: ModelName = "fashion-mnist",
    solver: Annotated[str, typer.Option(help="A solver without noise, with settings if wanted.")] = SOLVER,
    grid: Annotated[str, typer.Option(help="A time grid, or a .json file; where --search starts.")] = "uniform_logsnr",
    steps: Steps = 8,
    num: Annotated[int, typer.Option(help="Noises to calibrate on, 8 or more; a quarter is held out.")] = 64,
    search: Annotated[bool, typer.Option("--search/--no-search", help="Search the times too.")] = False,
    history: Annotated[int, typer.Option(help="Predictions whose coefficients are fitted in a row.")] = 4,
    reference_steps: Annotated[int, typer.Option(help="Calls of the reference solution of each noise.")] = 100,
    objective: Annotated[str, typer.Option(help="final, or local: the row-by-row fit alone.")] = "final",
    budget: Annotated[int | None, typer.Option(help="Network calls after which --search begins nothing new.")] = None,
    class_: ClassOfSeed = "each",
    prompt: Prompt = None,
    prompts: Prompts = None,
    guidance: Annotated[float, typer.Option(help="The guidance scale that the recipe is for; 1 is none.")] = 1.0,
    batch_size: BatchSize = 32,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    trust_pickle: TrustPickle = False,
) -> None:
    """Fit a solver's coefficients, and with --search its times, to a model; sample with the recipe that is written.

    Example: fewstep calibrate --model fashion-mnist --steps 6 --search --out recipe.json
    """
    from rich.progress import TextColumn, TimeElapsedColumn

    from fewstep import grids, solvers
    from fewstep.calibration import calibrate as fit
    from fewstep.cli.shared.conditions import read_prompts
    from fewstep.cli.shared.models import load_model
    from fewstep.cli.shared.progress import bar

    if out.suffix != ".json" or not out.absolute().parent.is_dir() or out.is_dir():
        raise InputError(f"--out is {str(out)!r}: write a name that ends in .json, in a folder that exists.")
    texts, chosen = read_prompts(prompt, prompts), solvers.named(solver)
    loaded = load_model(model, guidance=guidance, device=device, dtype=dtype, trust_pickle=trust_pickle)
    process = loaded.denoiser.process
    start = grids.named(grid, process, steps, solver=chosen)
    columns = (TextColumn("{task.description}"), TextColumn("{task.fields[shown]}"), TimeElapsedColumn())
    with bar(*columns) as progress:
        task = progress.add_task("calibrating", total=None, shown="")

        def tell(stage: str, calls: int, best: float | None) -> None:
            error = "" if best is None else f", best error {best:.4g}"
            progress.update(task, description=stage, shown=f"{calls} calls{error}")

        recipe = fit(
            loaded.denoiser,
            chosen,
            start,
            num=num,
            cond=_conditions(loaded, num, class_, texts),
            history=history,
            reference_steps=reference_steps,
            search=search,
            objective=objective,  # type: ignore[arg-type]  # Checked there.
            budget=budget,
            batch_size=batch_size,
            progress=tell,
        )

    recipe.save(out)
    plan, report = recipe.plan, recipe.report
    typer.echo(f"{plan.steps} steps, {plan.nfe} network calls: {report} -> {out}")
    if report is not None and report.kept == "own":
        typer.echo("The fit was not better than the solver's own rows on the held-out noises: these were kept.")


def _conditions(model: Model, num: int, class_: str, texts: list[str]) -> Any:
    """Return what ``fs.calibrate`` takes as ``cond``."""
    import torch

    from fewstep.cli.shared.conditions import conditions_of

    conditions = conditions_of(model, range(num), class_, texts)
    if conditions is None:
        return "none"
    if model.embed is not None:
        return model.embed([str(text) for text in conditions])
    return torch.tensor(conditions)

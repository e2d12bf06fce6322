"""``fewstep generate``: many samples, in shards that survive anything."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
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
    from rich.progress import Progress

    from fewstep.cli.generate.shards import Shard
    from fewstep.cli.shared.workers import Workers
    from fewstep.models.model import Model
    from fewstep.plan import Plan

__all__ = ["generate"]

QUEUE = 2
"""Batches that wait for the writer."""


def generate(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="The folder of the samples; the same command again goes on in it.")],
    model: ModelName = "fashion-mnist",
    solver: Solver = SOLVER,
    grid: Grid = "optimized",
    steps: Steps = 8,
    recipe: Recipe = None,
    skip: Skip = None,
    num: Annotated[int | None, typer.Option(help="How many samples, with the seeds from 0 on.")] = None,
    seeds: Annotated[str | None, typer.Option(help="The seeds: 0-49999, or 3,5,8-10.")] = None,
    class_: ClassOfSeed = "each",
    prompt: Prompt = None,
    prompts: Prompts = None,
    guidance: Guidance = 1.0,
    batch_size: BatchSize = 256,
    shard_size: Annotated[
        int,
        typer.Option(help="Samples in a file, and at most in a network call; what a killed run may have to do again."),
    ] = 1024,
    format_: Annotated[str, typer.Option("--format", help="npz, or png: a picture for each seed.")] = "npz",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    trust_pickle: TrustPickle = False,
) -> None:
    """Draw many samples into a folder; the same command again goes on where a run was stopped.

    Sample i depends on seed i alone. Several GPUs or processes: accelerate launch --multi_gpu --num_processes 2 -m
    fewstep.cli generate …

    Example: fewstep generate --solver sa:few_step=True --steps 6 --num 50000 --out samples
    """
    from fewstep import grids, solvers
    from fewstep.cli.generate.shards import shards_of
    from fewstep.cli.shared import manifest
    from fewstep.cli.shared.conditions import conditions_of, parse_seeds, read_prompts
    from fewstep.cli.shared.models import load_model
    from fewstep.cli.shared.profiles import settings_of, tuned_by
    from fewstep.cli.shared.recipes import recipe_plan, refuse_besides
    from fewstep.cli.shared.workers import workers
    from fewstep.fingerprint import model_fingerprint
    from fewstep.guidance import thresholds
    from fewstep.storage import remove_leftovers

    if batch_size < 1 or shard_size < 1:
        raise InputError(f"--batch-size is {batch_size}, --shard-size {shard_size}: both must be at least 1.")
    if format_ not in ("npz", "png"):
        raise InputError(f"--format is {format_!r}: write npz or png.")
    if recipe is not None:
        refuse_besides(context, recipe, ("solver", "grid", "steps"))
    wanted, texts, chosen = parse_seeds(seeds, num), read_prompts(prompt, prompts), solvers.named(solver)
    worker = workers(device)
    loaded = load_model(model, guidance=guidance, device=worker.device, dtype=dtype, trust_pickle=trust_pickle)
    if recipe is None:
        plan = chosen.plan(grids.named(grid, loaded.denoiser.process, steps, solver=chosen))
        sampler: dict[str, Any] = {"solver": solver, "grid": grid, "steps": steps}
    else:
        plan, sampler = recipe_plan(recipe, loaded.denoiser), {"recipe": str(recipe)}
    if skip is not None:
        sampler["skip"] = settings_of(tuned_by(skip, loaded.denoiser).profile)
    shards = shards_of(out, wanted, shard_size, format_ == "png")
    conditions_of(loaded, wanted[:1], class_, texts)
    description = {
        "format": manifest.FORMAT,
        "settings": {"model": model, "model_hash": model_fingerprint(loaded),
                     "thresholds": thresholds(loaded.denoiser), **sampler,
                     "seeds": manifest.spelled(wanted), "class": class_, "prompts": texts, "guidance": guidance,
                     "shard_size": shard_size, "format": format_, "device": device.partition(":")[0], "dtype": dtype},
        "plan": plan.to_json(),
        "versions": manifest.versions(),
        "files": [file.name for shard in shards for file in shard.files],
    }  # fmt: skip
    worker.lead(lambda: manifest.enter(out, description, leads=worker.index == 0))
    if worker.index == 0:
        remove_leftovers(out)
    missing = [shard for shard in shards if not shard.is_there()]
    for shard in shards[worker.index :: worker.count]:
        if shard.is_there():
            labels: Any = None if texts else conditions_of(loaded, shard.seeds, class_, texts)
            shard.check(labels, _size(loaded))
    worker.wait()  # until every process has seen what is missing, and none writes what is removed
    began = time.perf_counter()
    try:
        _Run(loaded, plan, class_, texts, batch_size).fill(missing[worker.index :: worker.count], worker)
    except OSError as error:
        raise InputError(
            f"{str(out)!r} cannot be written ({error.strerror or error}): {sum(s.is_there() for s in shards)} of "
            f"{len(shards)} shards are whole; make room, stop what else writes there, and run the same command again."
        ) from error
    worker.wait()
    if worker.index == 0:
        what = f"{recipe or f'{solver} on {grid}'}, {plan.steps} steps, {plan.nfe} network calls"
        speed = sum(len(shard.seeds) for shard in missing) / (time.perf_counter() - began)
        _conclude(shards, out, what, f"{speed:.1f} images/s{worker.among}" if missing else "all there already")
    worker.leave()


def _size(model: Model) -> tuple[int, ...] | None:
    """Return [H, W, C] of the model's images, None behind a decoder."""
    shape = model.denoiser.shape
    return None if shape is None or model.decode is not None else (*shape[1:], shape[0])


def _conclude(shards: list[Shard], out: Path, what: str, speed: str) -> None:
    missing = sum(not shard.is_there() for shard in shards)
    if missing:
        raise InputError(f"{missing} of {len(shards)} shards are missing in {str(out)!r}: run the same command again.")
    typer.echo(f"{what}: {sum(len(shard.seeds) for shard in shards)} images, {speed} -> {out}")


@dataclass(frozen=True)
class _Run:
    """What every shard of a set has in common."""

    model: Model
    plan: Plan
    class_: str
    prompts: list[str]
    batch_size: int

    def fill(self, shards: list[Shard], worker: Workers) -> None:
        """Make the shards of one process."""
        began = time.perf_counter()
        with _progress(worker.index > 0) as progress, ThreadPoolExecutor(1) as writer:
            name = "sampling" if worker.count == 1 else f"sampling, process 1 of {worker.count}"
            task = progress.add_task(name, total=sum(len(shard.seeds) for shard in shards), speed="")
            for shard in shards:
                for count in self._fill(shard, writer):
                    speed = (progress.tasks[task].completed + count) / (time.perf_counter() - began)
                    progress.update(task, speed=f"{speed:.1f} images/s")
                    progress.advance(task, count)

    def _fill(self, shard: Shard, writer: ThreadPoolExecutor) -> Iterator[int]:
        """Draw one shard batch by batch, while another thread writes; yield the size of each batch."""
        from fewstep.cli.generate.shards import ShardWriter
        from fewstep.cli.shared.conditions import conditions_of
        from fewstep.cli.shared.images import to_uint8

        conditions: Any = conditions_of(self.model, shard.seeds, self.class_, self.prompts)
        write = ShardWriter(shard, None if self.prompts else conditions)
        waiting: deque[Future[None]] = deque()
        try:
            for start in range(0, len(shard.seeds), self.batch_size):
                part = slice(start, start + self.batch_size)
                images = self.model.draw(self.plan, shard.seeds[part], conditions and conditions[part])
                waiting.append(writer.submit(write, to_uint8(images)))
                while len(waiting) > QUEUE:
                    waiting.popleft().result()
                count = len(images)
                del images  # One batch at a time.
                yield count
            while waiting:
                waiting.popleft().result()
        except BaseException:
            for future in waiting:
                future.cancel()
            writer.submit(write.abandon).result()
            raise


def _progress(silent: bool) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    from fewstep.cli.shared.progress import bar

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}")
    return bar(*columns, TimeRemainingColumn(), silent=silent)

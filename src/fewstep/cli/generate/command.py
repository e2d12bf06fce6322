"""``fewstep generate``: many samples, in shards that survive anything."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fewstep.cli.generate.shards import Shard, ShardWriter, shards_of
from fewstep.cli.settings.generate import GenerateSettings
from fewstep.cli.shared import manifest
from fewstep.cli.shared.conditions import conditions_of, parse_seeds, read_prompts
from fewstep.cli.shared.images import check_pictures
from fewstep.cli.shared.models import load_model
from fewstep.cli.shared.profiles import settings_of, tuned_by
from fewstep.cli.shared.progress import bar
from fewstep.cli.shared.sampler import Asked
from fewstep.cli.shared.workers import Workers, workers
from fewstep.errors import InputError
from fewstep.fingerprint import guidance_scale, model_fingerprint
from fewstep.guidance import thresholds
from fewstep.metrics.pixels import are_pictures, kept
from fewstep.models.model import Model
from fewstep.plan import Plan
from fewstep.storage import remove_leftovers

__all__ = ["generate"]

QUEUE = 2
"""Batches that wait for the writer."""


def generate(settings: GenerateSettings) -> None:
    """Draw many samples into a folder; the same command resumes a run that was stopped."""
    asked, wanted = Asked.of(settings), parse_seeds(settings.seeds, settings.num)
    worker = workers(settings.device)
    with manifest.held_by(worker, settings.out):
        _generate(settings, asked, wanted, worker)
    worker.leave()


def _generate(settings: GenerateSettings, asked: Asked, wanted: Sequence[int], worker: Workers) -> None:
    out, class_, texts = settings.out, settings.class_, read_prompts(settings.prompt, settings.prompts)
    model = asked.guided(load_model(settings, settings.guidance, worker.device), settings.guidance)
    if settings.format_ == "png":
        check_pictures(model, "--format npz")
    sampler = asked.on(model)
    words = dict(sampler.words)
    if asked.skip is not None:
        words["skip"] = settings_of(tuned_by(asked.skip, model.denoiser).profile)
    shards = shards_of(out, wanted, settings.shard_size, settings.format_ == "png")
    conditional = conditions_of(model, wanted[:1], class_, texts) is not None
    description = {
        "format": manifest.FORMAT,
        "settings": {
            "model": settings.model,
            "model_hash": model_fingerprint(model),
            "thresholds": thresholds(model.denoiser),
            **words,
            "seeds": manifest.spelled(wanted),
            "class": class_,
            "prompts": texts,
            "guidance": guidance_scale(model.denoiser),
            "shard_size": settings.shard_size,
            "format": settings.format_,
            "device": settings.device.partition(":")[0],
            "dtype": settings.dtype,
        },
        "plan": sampler.plan.to_json(),
        "versions": manifest.versions(),
        "files": [file.name for shard in shards for file in shard.files],
    }
    worker.lead(lambda: manifest.enter(out, description, leads=worker.index == 0))
    if worker.index == 0:
        remove_leftovers(out)
    missing = [shard for shard in shards if not shard.is_there()]
    for shard in shards[worker.index :: worker.count]:
        if shard.is_there():
            labels: Any = None if texts else conditions_of(model, shard.seeds, class_, texts)
            shard.check(labels, _size(model))
    worker.wait()  # until every process has seen what is missing, and none writes what is removed
    began = time.perf_counter()
    run = _Run(model, sampler.plan, class_, texts, settings.batch_size)
    try:
        run.fill(missing[worker.index :: worker.count], worker)
    except OSError as error:
        raise InputError(
            f"{str(out)!r} cannot be written ({error.strerror or error}): {sum(s.is_there() for s in shards)} of "
            f"{len(shards)} shards are whole; make room, stop what else writes there, and run the same command again."
        ) from error
    worker.wait()
    if worker.index == 0:
        speed = sum(len(shard.seeds) for shard in missing) / (time.perf_counter() - began)
        speeds = f"{speed:.1f} images/s{worker.among}" if missing else "all there already"
        _conclude(shards, out, sampler.on_samples_of(model, conditional), speeds)


def _size(model: Model) -> tuple[int, ...] | None:
    """Return [H, W, C] of the model's images, the shape of samples of another kind, None behind a decoder."""
    shape = model.denoiser.shape
    if shape is None or model.decode is not None:
        return None
    return (*shape[1:], shape[0]) if are_pictures(shape) else shape


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
        conditions: Any = conditions_of(self.model, shard.seeds, self.class_, self.prompts)
        write = ShardWriter(shard, None if self.prompts else conditions)
        waiting: deque[Future[None]] = deque()
        try:
            for start in range(0, len(shard.seeds), self.batch_size):
                part = slice(start, start + self.batch_size)
                images = self.model.draw(self.plan, shard.seeds[part], conditions and conditions[part])
                waiting.append(writer.submit(write, kept(images)))
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
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}")
    return bar(*columns, TimeRemainingColumn(), silent=silent)

"""A set of samples: drawn in shards by one process or several, and resumed where it was stopped."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fewstep.cli.generate.shards import Shard, ShardWriter, shards_of
from fewstep.cli.shared import manifest
from fewstep.cli.shared.conditions import conditions_of
from fewstep.cli.shared.progress import bar
from fewstep.cli.shared.workers import Workers
from fewstep.errors import InputError
from fewstep.fingerprint import guidance_scale, model_fingerprint
from fewstep.guidance import thresholds
from fewstep.metrics.pixels import are_pictures
from fewstep.models.model import Model
from fewstep.plan import Plan
from fewstep.storage import remove_leftovers

__all__ = ["SampleSet"]

QUEUE = 2
"""Batches that wait for the writer."""


@dataclass(frozen=True, kw_only=True)
class SampleSet:
    """Samples of a model by a plan, one for each seed, in a folder that is held by this run.

    Attributes:
        out: the folder.
        model: guidance and scaled skips are part of it.
        plan: what is executed.
        seeds: of the samples.
        class_: as ``--class``.
        prompts: samples take them in turn.
        batch_size: samples in a network call.
        shard_size: samples in a file.
        format_: "npz" for shards, or a file for each seed: "png", "gif" of videos, "wav" of audio.
        graph: whether the steps of a batch are one CUDA graph.
    """

    out: Path
    model: Model
    plan: Plan
    seeds: Sequence[int]
    class_: str = "each"
    prompts: list[str] = field(default_factory=list)
    batch_size: int = 256
    shard_size: int = 1024
    format_: str = "npz"
    graph: bool = False

    def draw(self, worker: Workers, described: Mapping[str, Any]) -> str:
        """Draw what is missing, and return how quick it was, in words.

        Args:
            worker: this process among all; every one calls this.
            described: what else decides the samples, JSON-able: a set that was made with another is refused.

        Raises:
            InputError: if the folder holds other samples, or cannot be written.
        """
        out, shards = self.out, shards_of(self.out, self.seeds, self.shard_size, self.format_)
        description = self._description(described, shards)
        worker.lead(lambda: manifest.enter(out, description, leads=worker.index == 0))
        if worker.index == 0:
            remove_leftovers(out)
        missing = [shard for shard in shards if not shard.is_there()]
        for shard in shards[worker.index :: worker.count]:
            if shard.is_there():
                labels: Any = None if self.prompts else self._conditions(shard)
                shard.check(labels, _size(self.model))
        worker.wait()  # until every process has seen what is missing, and none writes what is removed
        began = time.perf_counter()
        try:
            self._fill(missing[worker.index :: worker.count], worker)
        except OSError as error:
            raise InputError(
                f"{str(out)!r} cannot be written ({error.strerror or error}): {sum(s.is_there() for s in shards)} of "
                f"{len(shards)} shards are whole; make room, stop what else writes there, and run the same command "
                "again."
            ) from error
        worker.wait()
        absent = sum(not shard.is_there() for shard in shards)
        if absent:
            raise InputError(
                f"{absent} of {len(shards)} shards are missing in {str(out)!r}: run the same command again."
            )
        speed = sum(len(shard.seeds) for shard in missing) / (time.perf_counter() - began)
        return f"{speed:.1f} {self.model.kind}/s{worker.among}" if missing else "all there already"

    def _description(self, described: Mapping[str, Any], shards: list[Shard]) -> dict[str, Any]:
        return {
            "format": manifest.FORMAT,
            "settings": {
                **described,
                "model_hash": model_fingerprint(self.model),
                "thresholds": thresholds(self.model.denoiser),
                "seeds": manifest.spelled(self.seeds),
                "class": self.class_,
                "prompts": self.prompts,
                "guidance": guidance_scale(self.model.denoiser),
                "shard_size": self.shard_size,
                "format": self.format_,
            },
            "plan": self.plan.to_json(),
            "versions": manifest.versions(),
            "files": [file.name for shard in shards for file in shard.files],
        }

    def _conditions(self, shard: Shard) -> Any:
        return conditions_of(self.model, shard.seeds, self.class_, self.prompts)

    def _fill(self, shards: list[Shard], worker: Workers) -> None:
        """Make the shards of one process."""
        began = time.perf_counter()
        with _progress(worker.index > 0) as progress, ThreadPoolExecutor(1) as writer:
            name = "sampling" if worker.count == 1 else f"sampling, process 1 of {worker.count}"
            task = progress.add_task(name, total=sum(len(shard.seeds) for shard in shards), speed="")
            for shard in shards:
                for count in self._fill_one(shard, writer):
                    speed = (progress.tasks[task].completed + count) / (time.perf_counter() - began)
                    progress.update(task, speed=f"{speed:.1f} {self.model.kind}/s")
                    progress.advance(task, count)

    def _fill_one(self, shard: Shard, writer: ThreadPoolExecutor) -> Iterator[int]:
        """Draw one shard batch by batch, while another thread writes; yield the size of each batch."""
        conditions: Any = self._conditions(shard)
        write = ShardWriter(shard, None if self.prompts else conditions, self.model.rate)
        waiting: deque[Future[None]] = deque()
        try:
            for start in range(0, len(shard.seeds), self.batch_size):
                part = slice(start, start + self.batch_size)
                given = conditions and conditions[part]
                images = self.model.draw(self.plan, shard.seeds[part], given, graph=self.graph)
                waiting.append(writer.submit(write, *self.model.kept(images)))
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


def _size(model: Model) -> tuple[int, ...] | None:
    """Return [H, W, C] of the model's images, the shape of samples of another kind, None behind a decoder."""
    shape = model.denoiser.shape
    if shape is None or model.decode is not None:
        return None
    return (*shape[1:], shape[0]) if are_pictures(shape) else shape


def _progress(silent: bool) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}")
    return bar(*columns, TimeRemainingColumn(), silent=silent)

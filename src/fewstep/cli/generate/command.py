"""``fewstep generate``: many samples, in shards that survive anything."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from fewstep.cli.generate.sample_set import SampleSet
from fewstep.cli.settings.generate import GenerateSettings
from fewstep.cli.shared import manifest
from fewstep.cli.shared.conditions import conditions_of, parse_seeds, read_prompts
from fewstep.cli.shared.images import check_kind
from fewstep.cli.shared.models import load_model
from fewstep.cli.shared.profiles import settings_of, tuned_by
from fewstep.cli.shared.sampler import Asked
from fewstep.cli.shared.workers import Workers, workers

__all__ = ["generate"]


def generate(settings: GenerateSettings) -> None:
    """Draw many samples into a folder; the same command resumes a run that was stopped."""
    asked, wanted = Asked.of(settings), parse_seeds(settings.seeds, settings.num)
    worker = workers(settings.device)
    with manifest.held_by(worker, settings.out):
        _generate(settings, asked, wanted, worker)
    worker.leave()


def _generate(settings: GenerateSettings, asked: Asked, wanted: Sequence[int], worker: Workers) -> None:
    class_, texts = settings.class_, read_prompts(settings.prompt, settings.prompts)
    model = asked.guided(load_model(settings, settings.guidance, worker.device), settings.guidance)
    check_kind(model, f".{settings.format_}", f"--format is {settings.format_}", "--format npz")
    sampler = asked.on(model)
    words = dict(sampler.words)
    if sampler.skip is not None:
        words["skip"] = settings_of(tuned_by(sampler.skip, model.denoiser).profile)
    conditional = conditions_of(model, wanted[:1], class_, texts) is not None
    made = SampleSet(
        out=settings.out,
        model=model,
        plan=sampler.plan,
        seeds=wanted,
        class_=class_,
        prompts=texts,
        batch_size=settings.batch_size,
        shard_size=settings.shard_size,
        format_=settings.format_,
        graph=settings.graph,
    )
    described = {"model": settings.model, **words, "device": settings.device.partition(":")[0], "dtype": settings.dtype}
    described |= {"call": list(settings.call)} if settings.call else {}
    speed = made.draw(worker, described)
    if worker.index == 0:
        typer.echo(
            f"{sampler.on_samples_of(model, conditional)}: {len(wanted)} {model.kind}, {speed} -> {settings.out}"
        )

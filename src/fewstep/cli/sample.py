"""``fewstep sample``: a few samples of a model, as a picture."""

from __future__ import annotations

import time
from typing import Any

import torch
import typer
from torch import Tensor

from fewstep.cli.settings.sample import SampleSettings
from fewstep.cli.shared import catalogue
from fewstep.cli.shared.conditions import conditions_of, read_prompts
from fewstep.cli.shared.images import check_kind, check_writable, write_samples
from fewstep.cli.shared.models import load_model
from fewstep.cli.shared.profiles import tuned_by
from fewstep.cli.shared.progress import bar
from fewstep.cli.shared.sampler import Asked
from fewstep.errors import InputError
from fewstep.models.model import Model
from fewstep.plan import Plan

__all__ = ["sample"]


def sample(settings: SampleSettings) -> None:
    """Draw samples of a model into a picture."""
    if settings.list_:
        catalogue.show()
        return
    check_writable(settings.out)
    asked, texts = Asked.of(settings), read_prompts(settings.prompt, settings.prompts)
    model = asked.guided(load_model(settings, settings.guidance), settings.guidance)
    check_kind(model, settings.out.suffix, f"--out is {str(settings.out)!r}", "--out samples.npz")
    if settings.out.suffix == ".wav" and settings.num > 1:
        raise InputError(f"--out is {str(settings.out)!r}, a file of one sound: write --num 1, or a folder's name.")
    sampler = asked.on(model)
    if sampler.skip is not None:
        tuned_by(sampler.skip, model.denoiser)
    seeds = [settings.seed + i for i in range(settings.num)]
    conditions: Any = conditions_of(model, seeds, settings.class_, texts)
    began = time.perf_counter()
    what, made = model.kept(_draw(model, sampler.plan, seeds, conditions, settings.batch_size))
    seconds = time.perf_counter() - began
    write_samples(settings.out, what, made, seeds, None if texts else conditions, model.rate)
    done = sampler.on_samples_of(model, conditions is not None)
    typer.echo(f"{done}: {settings.num} {what}, {settings.num / seconds:.1f} {what}/s -> {settings.out}")


def _draw(model: Model, plan: Plan, seeds: list[int], conditions: Any, batch_size: int) -> Tensor:
    """Return the samples, batch by batch, under a progress bar."""
    parts = []
    with bar() as progress:
        task = progress.add_task("sampling", total=plan.steps * -(-len(seeds) // batch_size))
        for start in range(0, len(seeds), batch_size):
            part = slice(start, start + batch_size)
            images = model.draw(plan, seeds[part], conditions and conditions[part], lambda *_: progress.advance(task))
            parts.append(images.cpu())
    return torch.cat(parts)

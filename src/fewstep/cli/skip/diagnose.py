"""``fewstep skip diagnose``: norm ratios, denoising losses, inverted noise and complexity, as figures and JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fewstep import metrics, skip
from fewstep.cli.settings.options import names
from fewstep.cli.settings.skip import DiagnoseSettings
from fewstep.cli.shared.conditions import read_prompts
from fewstep.cli.shared.features import known_features
from fewstep.cli.shared.images import check_writable
from fewstep.cli.shared.journals import description_of, digest
from fewstep.cli.shared.manifest import versions
from fewstep.cli.shared.models import load_model
from fewstep.cli.shared.profiles import settings_of, tuned_by
from fewstep.cli.shared.progress import bar
from fewstep.cli.skip import figures as skip_figures
from fewstep.cli.skip.real_images import real_samples
from fewstep.journal import Journal, journal
from fewstep.skip import Profile
from fewstep.skip_analysis import Change, Diagnosis, RealData, noise_levels
from fewstep.skip_analysis import diagnose as measured
from fewstep.skip_analysis.diagnosis import calls, checked_parts
from fewstep.storage import json_text, write_whole

__all__ = ["diagnose"]

FORMAT = "fewstep-skip-diagnosis/1"


def diagnose(settings: DiagnoseSettings) -> None:
    """Measure the effect of scaled skips on a model, on real images; the same command resumes a stopped run."""
    check_writable(settings.out)
    with journal(settings.out) as begin:
        _diagnose(settings, begin)


def _diagnose(settings: DiagnoseSettings, begin: Callable[[dict[str, Any]], Journal]) -> None:
    texts, parts = read_prompts(None, settings.prompts), checked_parts(names(settings.diagnostics))
    profile = Profile(settings.bottom, settings.top) if settings.skip is None else skip.named(settings.skip)
    model = load_model(settings)
    known = known_features(settings.features, settings.model)
    extractor = None if known is None else metrics.features(known, settings.device)
    if settings.skip is not None:
        tuned_by(profile, model.denoiser).remove()  # It warns of another model.
    num, seed, batch_size = settings.num, settings.seed, settings.batch_size
    x_0, cond = real_samples(settings.data, model, num, seed, settings.class_, texts, batch_size)
    levels = noise_levels(model.denoiser.process, settings.levels)
    read = {"data": digest(x_0, cond), "profile": settings_of(profile), "features": extractor and extractor.tag}
    keep = begin(description_of("skip diagnose", settings, model, **read))
    with bar() as display:
        task = display.add_task("measuring", total=None)
        noises, progress = range(seed, seed + num), lambda: display.advance(task)
        samples = RealData(model.denoiser, x_0, noises, cond, batch_size, progress, keep)
        display.update(task, total=calls(samples, len(levels), settings.inversion_steps, parts))
        found = measured(
            samples,
            profile,
            extractor,
            decode=model.decode,
            levels=levels,
            inversion_steps=settings.inversion_steps,
            parts=parts,
        )
    record = {
        "model": settings.model,
        "data": settings.data.name,
        "num": num,
        "seed": seed,
        "class": settings.class_,
        "labels": cond is not None and model.embed is None,
        "prompts": texts,
        "features": extractor.tag if extractor else None,
        "profile": settings_of(profile),
        "inversion_steps": settings.inversion_steps,
        "device": settings.device.partition(":")[0],
        "dtype": settings.dtype,
        **({"call": list(settings.call)} if settings.call else {}),
    }
    _write(settings.out, found, record)
    _show(found, settings.out)


def _write(out: Path, found: Diagnosis, settings: dict[str, Any]) -> None:
    record = {"format": FORMAT, "settings": settings, "versions": versions(), **found.to_dict()}

    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "diagnosis.json").write_text(json_text(record), "utf-8")
        if found.ratios is not None:
            skip_figures.draw_ratios(found.ratios, folder / "ratios.png")
        if found.pixel is not None:
            skip_figures.draw_losses(found.levels, found.pixel, found.feature, found.bands, folder / "losses.png")
        if found.complexity is not None:
            skip_figures.draw_complexity(found.levels, found.complexity, folder / "complexity.png")
        if found.inversion is not None:
            skip_figures.draw_inversion(*found.inversion, folder / "inversion.png")

    write_whole(out, write)


def _show(found: Diagnosis, out: Path) -> None:
    console = Console(highlight=False, markup=False)
    table = Table(
        "σ/α",
        box=None,
        header_style="bold",
        title="‖skip‖/‖hidden‖; denoising losses and their change",
        title_justify="left",
    )
    columns: list[list[str]] = [[f"{level:.3g}" for level in found.levels]]
    if found.ratios is not None:
        for name, which in (("deepest", 0), ("outermost", -1)):
            table.add_column(name, justify="right")
            columns.append([f"{x:.3g}" for x in found.ratios.mean[:, which].tolist()])
    for name, change in (("in pixels", found.pixel), ("in features", found.feature)):
        if change is not None:
            table.add_column(name, justify="right")
            columns.append([f"{x:.3g}" for x in change.untuned.tolist()])
            table.add_column("tuned", justify="right", no_wrap=True)
            columns.append(_percent(change))
    if len(columns) > 1:
        for row in zip(*columns, strict=True):
            table.add_row(*row)
        console.print(table)
    if found.bands is not None:
        console.print(_changes("change of the loss by wavelet band", found.levels, found.bands))
    if found.complexity is not None:
        by_rho = {f"ρ = {rho:.3g}": change for rho, change in found.complexity.items()}
        console.print(_changes("change of the complexity by the ρ furthest from 1", found.levels, by_rho))
    if found.inversion is not None:
        for name, noise in zip(("untuned", "tuned"), found.inversion, strict=True):
            console.print(
                f"inverted noise, {name}: variance {noise.variance:.4f}, kurtosis {noise.kurtosis:+.3f}, "
                f"neighbours {noise.neighbours:+.4f}, MMD² {noise.mmd:.3g} (by chance {noise.chance:.2g})"
            )
    console.print(f"-> {out}")


def _changes(title: str, levels: Sequence[float], changes: Mapping[str, Change]) -> Table:
    """Return a table of relative changes over the noise level."""
    table = Table("σ/α", box=None, header_style="bold", title=title, title_justify="left")
    for name in changes:
        table.add_column(name, justify="right", no_wrap=True)
    for row in zip((f"{level:.3g}" for level in levels), *map(_percent, changes.values()), strict=True):
        table.add_row(*row)
    return table


def _percent(change: Change) -> list[str]:
    pairs = zip(change.relative.tolist(), change.error.tolist(), strict=True)
    return [f"{100 * x:+.1f}±{100 * e:.1f} %" for x, e in pairs]

"""``fewstep skip diagnose``: norm ratios, denoising losses and inverted noise, as figures and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewstep.cli.shared.options import PROFILE, BatchSize, Device, Dtype, ModelName, TrustPickle
from fewstep.cli.skip.real_images import FEATURES
from fewstep.cli.skip.real_images import HELP as DATA
from fewstep.errors import InputError

if TYPE_CHECKING:
    from fewstep.skip_analysis import Diagnosis

__all__ = ["diagnose"]

FORMAT = "fewstep-skip-diagnosis/1"


def diagnose(
    data: Annotated[Path, typer.Option(help=DATA)],
    out: Annotated[Path, typer.Option(help="A new folder for a figure of each diagnostic and diagnosis.json.")],
    model: ModelName = "fashion-mnist",
    bottom: Annotated[float, typer.Option(help="ρ of the deepest skip.")] = 0.8,
    top: Annotated[float, typer.Option(help="ρ of the outermost skip.")] = 1.0,
    skip: Annotated[Path | None, typer.Option(help=f"Instead of the two: {PROFILE}")] = None,
    features: Annotated[str | None, typer.Option(help=FEATURES)] = None,
    num: Annotated[int, typer.Option(help="Real images, drawn from the data at random, 2 or more.")] = 128,
    levels: Annotated[int, typer.Option(help="Noise levels, 2 or more.")] = 12,
    inversion_steps: Annotated[int, typer.Option(help="Network calls from an image to noise.")] = 40,
    diagnostics: Annotated[str, typer.Option(help="Some of ratios,losses,inversion.")] = "ratios,losses,inversion",
    seed: Annotated[int, typer.Option(help="Decides which images are drawn, and the first one's noise.")] = 0,
    class_: Annotated[str, typer.Option("--class", help="data (the labels of --data), none, or a class.")] = "data",
    prompts: Annotated[
        Path | None, typer.Option(help="A file of prompts, one a line; images take them in turn. Else an empty one.")
    ] = None,
    batch_size: BatchSize = 64,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    trust_pickle: TrustPickle = False,
) -> None:
    """Measure on real images what scaled skips do to a model.

    The ratio of each skip's norm to the hidden features', the denoising loss in pixels and in features, and how near
    to a Gaussian images come along the ODE, the latter two with and without tuning.

    Example: fewstep skip diagnose --data test_images.npz --bottom 0.8 --num 256 --out diagnosis
    """
    from fewstep import skip as skipping
    from fewstep import zoo
    from fewstep.cli.shared.conditions import read_prompts
    from fewstep.cli.shared.images import check_writable
    from fewstep.cli.shared.models import load_model
    from fewstep.cli.shared.profiles import settings_of, tuned_by
    from fewstep.cli.shared.progress import bar
    from fewstep.cli.skip.real_images import features_for, real_samples
    from fewstep.skip_analysis import RealData, noise_levels
    from fewstep.skip_analysis import diagnose as measured
    from fewstep.skip_analysis.diagnosis import calls, checked_parts

    if out.suffix:
        raise InputError(f"--out is {str(out)!r}: write the name of a folder, without a dot.")
    check_writable(out)
    if num < 2 or batch_size < 1 or inversion_steps < 1 or seed < 0:
        raise InputError(
            f"--num is {num}, --batch-size {batch_size}, --inversion-steps {inversion_steps}, --seed {seed}: at "
            "least 2, 1, 1 and 0 are needed."
        )
    texts = read_prompts(None, prompts)
    parts = checked_parts([part.strip() for part in diagnostics.split(",") if part.strip()])
    profile = skipping.Profile(bottom, top) if skip is None else skipping.load(skip)
    loaded = load_model(model, device=device, dtype=dtype, trust_pickle=trust_pickle)
    extractor = features_for(features, model, tuple(zoo.MODELS), device)
    if skip is not None:
        tuned_by(skip, loaded.denoiser).remove()  # It warns of another model.
    x_0, cond = real_samples(data, loaded, num, seed, class_, texts, batch_size)
    wanted = noise_levels(loaded.denoiser.process, levels)
    with bar() as progress:
        task = progress.add_task("measuring", total=None)
        samples = RealData(
            loaded.denoiser, x_0, range(seed, seed + num), cond, batch_size, lambda: progress.advance(task)
        )
        progress.update(task, total=calls(samples, len(wanted), inversion_steps, parts))
        found = measured(
            samples,
            profile,
            extractor,
            decode=loaded.decode,
            levels=wanted,
            inversion_steps=inversion_steps,
            parts=parts,
        )
    settings = {"model": model, "data": data.name, "num": num, "seed": seed, "class": class_,
                "labels": cond is not None and loaded.embed is None, "prompts": texts,
                "features": extractor.tag if extractor else None,
                "profile": settings_of(profile), "inversion_steps": inversion_steps,
                "device": device.partition(":")[0], "dtype": dtype}  # fmt: skip
    _write(out, found, settings)
    _show(found, out)


def _write(out: Path, found: Diagnosis, settings: dict[str, Any]) -> None:
    from fewstep.cli.shared.manifest import versions
    from fewstep.cli.skip import figures as skip_figures
    from fewstep.storage import write_whole

    record = {"format": FORMAT, "settings": settings, "versions": versions(), **found.to_dict()}

    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "diagnosis.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        if found.ratios is not None:
            skip_figures.draw_ratios(found.ratios, folder / "ratios.png")
        if found.pixel is not None:
            skip_figures.draw_losses(found.levels, found.pixel, found.feature, folder / "losses.png")
        if found.inversion is not None:
            skip_figures.draw_inversion(*found.inversion, folder / "inversion.png")

    write_whole(out, write)


def _show(found: Diagnosis, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("σ/α", box=None, header_style="bold", title="‖skip‖/‖hidden‖; denoising losses and their change",
                  title_justify="left")  # fmt: skip
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
            pairs = zip(change.relative.tolist(), change.error.tolist(), strict=True)
            columns.append([f"{100 * x:+.1f}±{100 * e:.1f} %" for x, e in pairs])
    if len(columns) > 1:
        for row in zip(*columns, strict=True):
            table.add_row(*row)
        console.print(table)
    if found.inversion is not None:
        for name, noise in zip(("untuned", "tuned"), found.inversion, strict=True):
            console.print(
                f"inverted noise, {name}: variance {noise.variance:.4f}, kurtosis {noise.kurtosis:+.3f}, "
                f"neighbours {noise.neighbours:+.4f}, MMD² {noise.mmd:.3g} (by chance {noise.chance:.2g})"
            )
    console.print(f"-> {out}")

"""``fewstep reproduce``: a table of a paper, sampled, measured and printed beside the paper's figures."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer

from fewstep import grids, reproduction, solvers
from fewstep.cli.generate.sample_set import SampleSet
from fewstep.cli.reproduce.report import Result, show, show_needed, show_tables, write
from fewstep.cli.settings.options import names
from fewstep.cli.settings.reproduce import ReproduceSettings
from fewstep.cli.shared import manifest
from fewstep.cli.shared.models import check_device
from fewstep.cli.shared.profiles import settings_of, tuned_by
from fewstep.cli.shared.workers import Workers, workers
from fewstep.errors import InputError
from fewstep.metrics import Extractor
from fewstep.metrics.evaluate import evaluate
from fewstep.metrics.extractor import NAMES, features
from fewstep.metrics.images import npz_names
from fewstep.metrics.references import reference_hash, reference_summary
from fewstep.metrics.statistics import FeatureStatistics
from fewstep.models.model import Model
from fewstep.processes import Process
from fewstep.processes.spec import parse
from fewstep.reproduction import Row, Table, Wanted
from fewstep.skip import named as named_skip
from fewstep.storage import Schema, read_json, write_json

__all__ = ["reproduce"]

FORMAT = "fewstep-reproduction-run/1"
INCEPTION = "https://github.com/toshas/torch-fidelity/releases/tag/v0.2.0"
"""Where the weights of the FID's Inception are downloaded from."""


class _Measured(Schema):
    """What is kept of a row that was measured."""

    fd: float
    images: int


def reproduce(settings: ReproduceSettings) -> None:
    """Run a table, or say what it needs."""
    if settings.list_ or settings.table is None:
        show_tables()
        return
    table = reproduction.named(settings.table)
    rows = table.chosen(None if settings.rows is None else names(settings.rows))
    if settings.weights is None:
        show_needed(table, [*_files(table, settings, Path()), _inception(settings)])
        return
    out = _checked_out(settings, table)
    worker = workers(settings.device)
    with manifest.held_by(worker, out):
        _reproduce(settings, table, rows, out, worker)
    worker.leave()


def _checked_out(settings: ReproduceSettings, table: Table) -> Path:
    """Return ``--out``, if no option is missing.

    Raises:
        InputError: with the option.
    """
    if settings.inception is None:
        raise InputError(f"--inception is missing: give the file of Inception's weights; download it from {INCEPTION}.")
    if settings.out is None:
        raise InputError("--out is missing: name a folder for the samples and the results.")
    check_device(settings.device)
    if table.network.is_pickle and not settings.trust_pickle:
        raise InputError(
            f"{table.network.file!r} is a pickle, and loading one runs code: add --trust-pickle if you trust it."
        )
    return settings.out


def _files(table: Table, settings: ReproduceSettings, folder: Path) -> list[Wanted]:
    """Return the files that a table needs in a folder."""
    found = table.files if settings.reference is not None else [*table.files, table.reference]
    return [Wanted(folder / file.name, file.url, file.sha256) for file in found]


def _inception(settings: ReproduceSettings) -> Wanted:
    given = settings.inception or "pt_inception-2015-12-05-6726825d.pth"
    return Wanted(Path(given.rpartition(":")[2]), INCEPTION)


def _features(settings: ReproduceSettings, device: str) -> Extractor:
    given = str(settings.inception)
    known = any(given.startswith(f"{name.partition(':')[0]}:") for name in NAMES if ":" in name)
    return features(given if known else f"inception:{given}", device)


def _reproduce(settings: ReproduceSettings, table: Table, rows: Sequence[Row], out: Path, worker: Workers) -> None:
    folder = Path(settings.weights or "")
    hashes = reproduction.checked_files([*_files(table, settings, folder), _inception(settings)])
    reference = settings.reference or folder / table.reference.name
    reproduction.check_reference(reference, table.resolution)
    extractor = _features(settings, worker.device)
    against = worker.lead(lambda: _against(reference, extractor, settings.batch_size))
    _check_features(extractor, against, table.resolution, reference)
    model = table.network.load(folder, worker.device).guided(table.guidance)
    _check_resolution(model, table)
    for row in rows:
        _check_calls(row, model.denoiser.process)
    count = settings.num or table.samples
    decided = {
        "table": table.model_dump(mode="json"),
        "samples": count,
        "weights": hashes,
        "features": extractor.tag,
        "reference_hash": reference_hash(str(reference)),
    }
    description = {"format": FORMAT, "settings": decided, "versions": manifest.versions(), "files": []}
    worker.lead(lambda: manifest.enter(out, description, leads=worker.index == 0))
    bench = _Bench(settings, table, model, extractor, against, out, count, worker)
    results = [bench.result(row) for row in rows]
    if worker.index == 0:
        write(out, table, results, {**decided, "versions": manifest.versions()})
        show(table, results, extractor.name, len(against.moments.mean), out)


def _against(reference: Path, extractor: Extractor, batch_size: int) -> FeatureStatistics:
    """Return the statistics in a reference, where it has images too: those are often of more images than it has."""
    if reference.suffix == ".npz" and {"mu", "sigma"} <= npz_names(reference):
        return FeatureStatistics.load(reference)
    return reference_summary(str(reference), extractor, batch_size)


def _check_features(extractor: Extractor, against: FeatureStatistics, resolution: int, reference: Path) -> None:
    """Try the features on two black images: do they take them, and are they those of the reference?

    Raises:
        InputError: if not.
    """
    made = extractor(torch.full((2, 3, resolution, resolution), -1.0))
    if made.shape[1] != len(against.moments.mean):
        raise InputError(
            f"the reference {str(reference)!r} has {len(against.moments.mean)} dimensions, the features "
            f"{extractor.name!r} have {made.shape[1]}: give the statistics of these features, or images."
        )


def _check_resolution(model: Model, table: Table) -> None:
    shape = model.denoiser.shape
    if shape is None:
        return
    images = model.images(torch.zeros(1, *shape, device=model.denoiser.device))
    if tuple(images.shape[2:]) != (table.resolution, table.resolution):
        raise InputError(
            f"the network makes images of {images.shape[2]}×{images.shape[3]} pixels, the table is of "
            f"{table.resolution}×{table.resolution}: the weights are of another network."
        )


def _check_calls(row: Row, process: Process) -> None:
    """Refuse a row with another number of calls than it says, without the search for an optimised grid.

    Raises:
        InputError: with both numbers, or if solver or grid do not fit the process.
    """
    solver = solvers.named(row.solver)
    name, settings = parse(row.grid)
    grid = row.grid
    if name == "optimized":
        grids.read(row.grid)
        grid = "uniform_logsnr" + (f":end={settings['end']}" if "end" in settings else "")
    calls = solver.plan(grids.named(grid, process, row.steps, solver=solver)).nfe
    if calls != row.calls:
        raise InputError(f"row {row.name!r} has {calls} network calls, and says {row.calls}: correct the table.")


@dataclass(frozen=True)
class _Bench:
    """What all rows have in common."""

    settings: ReproduceSettings
    table: Table
    model: Model
    extractor: Extractor
    against: FeatureStatistics
    out: Path
    count: int
    worker: Workers

    def result(self, row: Row) -> Result:
        """Return a row with what was measured now, or in a run that was stopped."""
        file = self.out / f"{row.name}.json"
        if not file.is_file():
            self._draw(row)
            if self.worker.index == 0:
                found = evaluate(self.out / row.name, self.against, self.extractor, ("fd",), self.settings.batch_size)
                write_json(file, {"fd": found["metrics"]["fd"], "images": found["images"]})
            self.worker.wait()
        measured = read_json(file, _Measured, "the result")
        return Result(row, measured.fd, measured.images)

    def _draw(self, row: Row) -> None:
        solver, folder = solvers.named(row.solver), self.out / row.name
        plan = solver.plan(grids.named(row.grid, self.model.denoiser.process, row.steps, solver=solver))
        self.worker.lead(lambda: folder.mkdir(exist_ok=True))
        described: dict[str, Any] = {"table": self.table.title, "solver": row.solver, "grid": row.grid}
        scaled: Any = nullcontext()
        if row.skip is not None:
            scaled = tuned_by(named_skip(row.skip), self.model.denoiser)
            described["skip"] = settings_of(scaled.profile)
        samples = SampleSet(
            out=folder,
            model=self.model,
            plan=plan,
            seeds=range(self.table.first_seed, self.table.first_seed + self.count),
            batch_size=self.settings.batch_size,
            shard_size=self.settings.shard_size,
        )
        with scaled:
            speed = samples.draw(self.worker, {**described, "device": self.settings.device.partition(":")[0]})
        if self.worker.index == 0:
            typer.echo(f"{row.name}: {self.count} images, {plan.nfe} network calls each, {speed}")

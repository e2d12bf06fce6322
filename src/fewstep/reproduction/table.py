"""A table of a paper: its network, the rows that are sampled, the reference, and the paper's own figures."""

from __future__ import annotations

from importlib import resources
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from fewstep.errors import InputError, unknown_name
from fewstep.reproduction.networks import FileName, Network
from fewstep.storage import Schema, parsed, read_json

__all__ = ["NAMES", "Download", "Paper", "Row", "Table", "named"]

FORMAT = "fewstep-reproduction/1"
FOLDER = "tables"
NAMES = tuple(
    sorted(
        file.name.removesuffix(".json")
        for file in (resources.files("fewstep.reproduction") / FOLDER).iterdir()
        if file.name.endswith(".json")
    )
)
"""The tables that come with the package."""

Whole = Annotated[int, Field(ge=1, le=100_000_000)]
RowName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$")]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Exact(Schema):
    model_config = ConfigDict(extra="forbid")


class Download(_Exact):
    """A file, and where it is downloaded from.

    Attributes:
        name: of the file in the folder of ``--weights``.
        url: of the file, or of the page that offers it.
        sha256: of the file; None where its publisher gives none.
    """

    name: FileName
    url: str
    sha256: Hash | None = None


class Paper(_Exact):
    """Where a table is from."""

    title: str
    arxiv: str
    place: str


class Row(_Exact):
    """A row: how samples are drawn, and what the paper measured.

    Attributes:
        name: of the row, and of the folder of its samples.
        solver: as ``--solver``.
        grid: as ``--grid``.
        steps: the number of intervals.
        calls: network calls for a sample, a pair under guidance being one.
        skip: as ``--skip``: ρ of the deepest skip or settings; None leaves the skips alone.
        paper: the paper's FID; None where it is not known for certain.
    """

    name: RowName
    solver: str
    grid: str
    steps: Whole
    calls: Whole
    skip: str | None = None
    paper: float | None = None


class Table(_Exact):
    """A table of a paper.

    Attributes:
        format: "fewstep-reproduction/1".
        title: what it is of.
        paper: where it is from.
        notes: what is set otherwise than in the paper, or not known of it.
        network: the network and its settings.
        files: what is needed of others, the reference apart.
        resolution: pixels along a side of an image.
        reference: the statistics, or the images, that samples are compared with.
        guidance: as ``--guidance``; None: there is none.
        samples: how many samples the paper takes.
        first_seed: sample i has the seed first_seed + i; its class is the seed modulo the number of classes.
        rows: in the paper's order.
    """

    format: str
    title: str
    paper: Paper
    notes: list[str] = []
    network: Network
    files: list[Download]
    resolution: Whole
    reference: Download
    guidance: float | None = None
    samples: Whole = 50_000
    first_seed: Annotated[int, Field(ge=0, lt=2**62)] = 0
    rows: Annotated[list[Row], Field(min_length=1)]

    def chosen(self, names: list[str] | None) -> list[Row]:
        """Return the rows of these names, in the table's order; None: all of them.

        Raises:
            InputError: if there is none of a name.
        """
        known = [row.name for row in self.rows]
        for name in names or ():
            if name not in known:
                raise unknown_name("row", name, known)
        return [row for row in self.rows if names is None or row.name in names]


def named(name: str) -> Table:
    """Return a table that comes with the package, or that of a ``.json`` file.

    Raises:
        InputError: if there is none of that name, or the file is no table.
    """
    if name.endswith(".json"):
        return _checked(read_json(name, {FORMAT: Table}, "the table"))
    if name not in NAMES:
        raise unknown_name("table", name, NAMES)
    text = (resources.files("fewstep.reproduction") / FOLDER / f"{name}.json").read_text("utf-8")
    return _checked(parsed(text, {FORMAT: Table}, f"the table {name!r}"))


def _checked(table: Table) -> Table:
    names = [row.name for row in table.rows]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"the table has two rows {twice!r}: give each a name of its own.")
    if table.network.file not in {file.name for file in table.files}:
        raise InputError(
            f"the network's file {table.network.file!r} is not among the table's files: add where it is from."
        )
    return table

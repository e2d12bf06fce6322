"""The networks of the tables by their kind, each with the settings that its checkpoint does not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from fewstep.models.loading import load_edm_pickle
from fewstep.models.model import Model
from fewstep.storage import Schema

__all__ = ["EDM", "Network"]


class _Kind(Schema):
    model_config = ConfigDict(extra="forbid")


class EDM(_Kind):
    """A pickle of EDM, which says itself what it is; loading it runs the code in it.

    Attributes:
        kind: "edm".
        file: the pickle.
    """

    kind: Literal["edm"]
    file: str

    def needs(self) -> tuple[str, ...]:
        """Return the names of the files."""
        return (self.file,)

    @property
    def is_pickle(self) -> bool:
        """Whether loading runs code."""
        return True

    def load(self, folder: Path, device: str) -> Model:
        """Return the model.

        Raises:
            InputError: if the file holds none.
        """
        return load_edm_pickle(folder / self.file, device=device)


Network = Annotated[EDM, Field()]
"""Any network of a table."""
